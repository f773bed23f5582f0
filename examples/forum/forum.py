"""Forum subscriptions, after Moodle's MDL-59854: whether a user is subscribed is asked in one transaction, and answered in another.

A user who clicks twice makes two requests. When both ask before either inserts, there are two subscriptions, and everything that
expects one for each user fails from then on (MDL-60669).
"""

from __future__ import annotations

from retroact import Connection, invariant, transaction, workflow


class DuplicateRecords(Exception):
    """A user is subscribed more than once."""


@transaction
def open_forum(conn: Connection) -> None:
    conn.execute("create table forum_subscriptions (id integer primary key autoincrement, userid integer not null, forum integer not null)")


@transaction
def is_subscribed(conn: Connection, user: int, forum: int) -> bool:
    found = conn.value("select 1 from forum_subscriptions where userid = :user and forum = :forum", user=user, forum=forum)
    return found is not None


@transaction
def insert_subscription(conn: Connection, user: int, forum: int) -> int:
    conn.execute("insert into forum_subscriptions (userid, forum) values (:user, :forum)", user=user, forum=forum)
    return conn.value("select max(id) from forum_subscriptions where userid = :user and forum = :forum", user=user, forum=forum)


@transaction
def subscribers(conn: Connection, forum: int) -> list[int]:
    users = [row.userid for row in conn.rows("select userid from forum_subscriptions where forum = :forum order by id", forum=forum)]
    if len(set(users)) < len(users):
        raise DuplicateRecords(f"forum {forum}")
    return users


@workflow
def subscribe(user: int, forum: int) -> bool:
    # The bug: two transactions, and between them the same user may click again.
    if is_subscribed(user, forum):
        return False
    insert_subscription(user, forum)
    return True


@invariant
def subscribed_once(conn: Connection) -> bool:
    return not conn.rows("select 1 from forum_subscriptions group by userid, forum having count(*) > 1")
