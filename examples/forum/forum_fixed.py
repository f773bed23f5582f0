"""Forum subscriptions with the bug fixed: whether a user is subscribed is asked and answered in one transaction."""

from __future__ import annotations

from retroact import Connection, invariant, transaction, workflow


class DuplicateRecords(Exception):
    """A user is subscribed more than once."""


@transaction
def open_forum(conn: Connection) -> None:
    conn.execute("create table forum_subscriptions (id integer primary key autoincrement, userid integer not null, forum integer not null)")


@transaction
def subscribe_unless_subscribed(conn: Connection, user: int, forum: int) -> bool:
    # The fix: one transaction.
    if conn.value("select 1 from forum_subscriptions where userid = :user and forum = :forum", user=user, forum=forum) is not None:
        return False
    conn.execute("insert into forum_subscriptions (userid, forum) values (:user, :forum)", user=user, forum=forum)
    return True


@transaction
def subscribers(conn: Connection, forum: int) -> list[int]:
    users = [row.userid for row in conn.rows("select userid from forum_subscriptions where forum = :forum order by id", forum=forum)]
    if len(set(users)) < len(users):
        raise DuplicateRecords(f"forum {forum}")
    return users


@workflow
def subscribe(user: int, forum: int) -> bool:
    return subscribe_unless_subscribed(user, forum)


@invariant
def subscribed_once(conn: Connection) -> bool:
    return not conn.rows("select 1 from forum_subscriptions group by userid, forum having count(*) > 1")
