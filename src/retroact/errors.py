"""One table of errors. Each says whether it is definite, whose fault it is, and what to do about it.

An error exists here only if somebody could react to it in particular. Its docstring is its message: the fields in braces are
filled from the keyword arguments it is raised with. `definite` answers the first question of every caller: True means that the
thing asked for certainly did not happen, False means that it may have happened and must be looked up before it is tried again.

    RetroactError
    ├── Misuse        the caller asked for something that cannot be
    ├── CodeFault     a registered function broke a rule
    ├── TraceFault    the record does not say what was needed, or says it no longer
    └── EngineFault   the database or the machine below failed

This module must not know any other module of the package.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class Blame(enum.Enum):
    """Whose fault an error is, which is who has to act."""

    CALLER = "caller"
    CODE = "code"
    TRACE = "trace"
    ENGINE = "engine"


class RetroactError(Exception):
    """Something in retroact failed."""

    blame: ClassVar[Blame] = Blame.ENGINE
    definite: ClassVar[bool] = True

    def __init__(self, **details: object) -> None:
        self.details = details
        template = " ".join((type(self).__doc__ or "").split())
        super().__init__(template.format(**details))


# --- Misuse: the caller asked for something that cannot be --------------------------------------------------------------


class Misuse(RetroactError):
    """The call cannot be carried out as it is."""

    blame = Blame.CALLER


class UnknownFunction(Misuse):
    """No function named {name!r} is registered. Known functions: {known}. Check the spelling, or add it to the App."""


class DuplicateFunction(Misuse):
    """Two functions are named {name!r} ({first} and {second}). Give one of them another name: @{kind}(name="...")."""


class BadArguments(Misuse):
    """{function}: {problem}. It takes {signature}."""


class BadDeclaration(Misuse):
    """{function}: {problem}."""


class OutsideRun(Misuse):
    """{function} was called outside of a run. Call app.run({function}, ...) to run it as a {kind}, or {function}.body(...) to
    call the plain Python function in a unit test."""


class MisplacedCall(Misuse):
    """{inner} ({inner_kind}) was called inside {outer} ({outer_kind}). {remedy}"""


class UnknownRun(Misuse):
    """There is no run {run!r} in {database}. `retroact runs` lists them."""


class UnknownStep(Misuse):
    """Run {run!r} has no transaction that is its step {step}. Its transactions are steps {steps}; a transaction that was run alone is
    step 0."""


class UnknownVersion(Misuse):
    """Version {version} is not in the trace of {database}, which holds versions {first} to {last}."""


class WrongFunction(Misuse):
    """Run {run!r} was started as {recorded}, not as {asked}. A run id names one invocation: use another id."""


class BadStatement(Misuse):
    """{function}, statement {statement}: {problem}. The SQL was: {sql}"""


class PastNotKept(Misuse):
    """{what} needs a database that keeps its past, which is not kept on Postgres yet ({database}). What happened is recorded and can
    be read: `retroact trace RUN`, or the views of the schema retroact. Use a SQLite database where the past is to be opened or run
    again. A server's tables are changed by a @transaction of yours, and its free space is its own affair."""


class NotFinished(Misuse):
    """Run {run!r} is {state}; it has no outcome yet. {remedy}"""


class BadMigration(Misuse):
    """{file}: {problem}. {remedy}"""


class MigrationChanged(Misuse):
    """{file} was changed after it was applied: it is {now}, what was applied as version {version} is {then}. Put it back as it was,
    and write what is to be changed into a new migration."""


class BadRetention(Misuse):
    """This retention cannot be kept: {problem}. An example: Retention(age="30d", size="1GB", tables={{"sessions": "7d"}})."""


class BadSchedule(Misuse):
    """{schedule!r} cannot be the schedule of these runs: {problem}. `retroact retro RUN... --explore` prints schedules that can."""


class NoProject(Misuse):
    """{problem}. {remedy}"""


class AlreadyThere(Misuse):
    """{path} is there already. Nothing was changed. Give another name, or say that it may be replaced: --force (overwrite=True)."""


class OnlyForReading(Misuse):
    """{path} is a portable trace. It can be read and run again (runs, trace, asof, replay, retro); for anything else name the
    database that it came from, or another."""


class UnknownTable(Misuse):
    """There is no {what} in {database} as of version {version}; it has {known}."""


class CannotRedact(Misuse):
    """{column} cannot be redacted: {problem}. {remedy}"""


# --- CodeFault: a registered function broke a rule ----------------------------------------------------------------------


class CodeFault(RetroactError):
    """A registered function cannot be run as it is written."""

    blame = Blame.CODE


class UnencodableResult(CodeFault):
    """{function} returned {value}, which cannot be recorded as {expected}: {problem}. The transaction was rolled back. Return
    plain data (numbers, text, lists, dicts, dataclasses, msgspec.Struct), or declare the right type."""


class ForbiddenEffect(CodeFault):
    """{function} is a transaction and may not {action}: what it does must be undone by a rollback and be the same when it is
    run again. Put this into a @step and call it from a workflow."""


class CodeChanged(CodeFault):
    """Run {run!r} of {workflow} stopped at step {step}: its record says {recorded}, the code now calls {called}. Nothing is
    lost: the run waits where it was. Start it with the code it began with, or resume it with code that agrees with its record."""


class ReadOnlyTransaction(CodeFault):
    """{function} is declared read_only and tried to write: {sql}. Remove read_only=True, or do not write."""


class StepTimeout(CodeFault):
    """{function} did not answer within {seconds} s. It may have been carried out: {key!r} is its idempotency key."""

    definite = False


class SourceMissing(CodeFault):
    """The source of {function} is not at hand ({problem}), so the past cannot be run again with it. Define functions in a file."""


class MigrationFailed(CodeFault):
    """{file}{where}: {problem}. Nothing of it was applied; the migrations before it stand.{sql}"""


class LoadFailed(CodeFault):
    """{path} cannot be loaded: {problem}."""


class NotRepeatable(CodeFault):
    """{function} (run {run!r}) did something else when it was executed again on the same state: first {then}, then {now}. What it
    does must depend on nothing but its arguments and the database; keep no state in the module, and take time and chance from
    retroact.now(), retroact.rng() and retroact.uuid()."""


# --- TraceFault: the record does not say what was needed ----------------------------------------------------------------


class TraceFault(RetroactError):
    """The trace cannot answer."""

    blame = Blame.TRACE


class DamagedTrace(TraceFault):
    """Record {version} of {database} was changed after it was written: {problem}. What follows it cannot be trusted to be what
    happened. Restore the file from a backup, or replay up to version {last_good}."""


class DamagedPage(TraceFault):
    """The page log {path} is damaged: page {page} as of commit {commit} {problem}. Past states that need this page cannot be
    rebuilt; states that do not are unaffected. Restore the file from a backup."""


class ReplayerLost(TraceFault):
    """The process that was to replay under PYTHONHASHSEED={seed} ended with exit code {code}. What it said stands above. Without it:
    PYTHONHASHSEED={seed} retroact replay RUN"""


class BeyondHistory(TraceFault):
    """The state as of version {version} cannot be rebuilt: the kept past of {database} begins at version {horizon}. {reason}"""


class NoRecordedOutcome(TraceFault):
    """{function} was called with arguments that the record has no outcome for (run {run!r}, step {step}). The outside world is
    not asked again while the past is run; give an answer to use: --answer {function}=JSON."""


class DamagedFile(TraceFault):
    """{path} is not a whole portable trace: {problem}. Nothing of it is used. Get the file again, or export it again."""


class NotExported(TraceFault):
    """{path} does not hold all of {what} as of version {version}: what was exported did not need it. Export again where the
    database is, with --tables {table} or --whole."""


# --- EngineFault: the database or the machine below failed --------------------------------------------------------------


class EngineFault(RetroactError):
    """The database failed."""


class DatabaseBusy(EngineFault):
    """{path} is open in another process that writes (process {pid}). One process writes a SQLite database; reading commands
    (runs, trace, asof, replay, retro) work beside it. Stop the other process, or send the work to it."""


class Unanswered(EngineFault):
    """{path} is open in process {pid}, which did not answer within {seconds} s when it was asked to {what}. Ask it itself, in that
    process (app.{what}(...)), or stop it first. It may still do it later."""

    definite = False


class NewerDatabase(EngineFault):
    """{path} was written by a newer retroact (schema {found}; this one knows up to {known}). Upgrade retroact. Nothing was
    changed."""


class NotADatabase(EngineFault):
    """{path} is not a SQLite database, or it is damaged: {problem}. Nothing was changed."""


class Unreachable(EngineFault):
    """{database} cannot be reached or asked: {problem}. Is the server running, and are host, port, user and password right?"""


class Contended(EngineFault):
    """{function} was tried {attempts} times, and each time another transaction was in its way: {problem}. Nothing of it happened.
    `retroact.attempts` has each attempt. Touch fewer rows that others touch, or call it again when there is less to do."""


class OutcomeUnknown(EngineFault):
    """The connection was lost while {function} was committed ({problem}), and the server has not come back to be asked. It may have
    happened: the same call with run={run!r} gives its outcome, or carries it out if it did not happen."""

    definite = False


class CommitFailed(EngineFault):
    """The transaction of {function} was not committed: {problem}. It was rolled back whole, nothing of it happened. It can be
    called again when the cause is gone."""


class Closed(EngineFault):
    """The App on {path} is closed. Open a new one."""


# --- not errors of the platform: outcomes that a caller may meet ---------------------------------------------------------


class RunFailed(RetroactError):
    """Run {run!r} failed: {error}: {message}"""

    blame = Blame.CODE


class RunCancelled(RetroactError):
    """Run {run!r} was cancelled. `retroact resume {run}` or app.resume({run!r}) goes on from its last recorded step."""

    blame = Blame.CALLER
