"""`retroact retro --explore` and `--schedule`: the past in other orders. What could have gone wrong?

This module must not know how schedules are found or run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retroact.cli import debugging, opening, project, selection
from retroact.cli.failure import NO, BadRequest
from retroact.cli.output import Cell, Progress, note, out, paint, print_json, table

if TYPE_CHECKING:
    from retroact.function.registry import Registry
    from retroact.retroaction.exploration import Exploration, Options, Play
    from retroact.trace.record import Run

EPILOG = """
Exploring (--explore, --schedule) needs no changed code. Exit code 0 only if every schedule within the bound was looked at, every run
could be decided, and nothing went wrong.
  retroact retro order-1 order-2 --explore
  retroact retro order-1 order-2 --schedule 1,2x3,1
  retroact retro order-1 order-2 --schedule 1,2x3,1 --debug --break reserve
--debug stops in the transactions of that schedule, each on the state that it sees there. Workflows are not stopped in: their bodies
are run several times."""
_SEED = 0


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of exploration."""
    group = parser.add_argument_group("exploring other schedules")
    group.add_argument("--explore", action="store_true", help="look at the schedules that the runs could have had")
    group.add_argument("--schedule", metavar="TURNS", help="run one schedule: whose turn it is, by place among the runs: 1,2x3,1")
    debugging.prompt_options(group, "with --schedule: stop in pdb at the first line of each transaction, on the state that it sees")
    group.add_argument("--serial", action="store_true", help="each end must be that of some serial order of the runs")
    group.add_argument(
        "--preemptions", metavar="N", default="2", help="switches away from a run that could go on: a number, or all (default: 2)"
    )
    group.add_argument("--schedules", metavar="N", type=int, help="stop after so many schedules (default: 100000)")
    group.add_argument("--seconds", metavar="S", type=float, help="stop after so many seconds (default: 30)")
    group.add_argument("--seed", metavar="N", type=int, help=f"which of equally good orders is tried first (default: {_SEED})")
    group.add_argument(
        "--mock", metavar="STEP", action="append", default=[], help="an unrecorded call of STEP has a result that STEP has in the record"
    )
    group.add_argument("--live", metavar="STEP", action="append", default=[], help="an unrecorded call of STEP is carried out, for real")


def wanted(args: argparse.Namespace) -> bool:
    """Whether other schedules are asked for. Raises BadRequest when they are not and options for them are given."""
    if args.explore and args.schedule:
        raise BadRequest(problem="--explore and --schedule do not go together", remedy="Look at all schedules, or run one")
    if args.breaks and not args.debug:
        raise BadRequest(problem="--break says where to stop, and nothing stops", remedy="Add --debug")
    if args.debug and not args.schedule:
        remedy = (
            "Name it: --schedule TURNS (--explore finds those that go wrong); what happened is stopped in by `retroact replay RUN --debug`"
        )
        raise BadRequest(problem="--debug stops in one schedule, and none is named", remedy=remedy)
    if args.explore or args.schedule:
        return True
    given = [f"--{name}" for name in ("serial", "schedules", "seconds", "seed", "mock", "live") if getattr(args, name)]
    if given:
        raise BadRequest(problem=f"{given[0]} is for exploring", remedy="Add --explore, or leave it out")
    return False


def call(args: argparse.Namespace) -> int:
    """Explore, or run one schedule, and print what was found."""
    from retroact.cli.replay import within_history
    from retroact.function.registry import Registry
    from retroact.replay.shelf import Shelf
    from retroact.retroaction.explorer import Explorer

    asked = _options(args)
    if args.debug:
        debugging.must_converse(args, "without --debug the schedule is performed and shown, for programs with --json")
    path = project.past(args)
    changed = Registry.of(opening.functions_in(project.existing_code(Path(args.changed)))) if args.changed else None
    quiet = contextlib.nullcontext() if args.debug else opening.silenced()
    progress = Progress("exploring", "schedules")
    with opening.history_of(path) as history, contextlib.nullcontext() if args.debug else progress:
        runs = within_history(history, selection.chosen(history.trace, args, opening.now_us), args)
        runs = runs if selection.named(args) else _explorable(runs, changed, args)
        shelf = Shelf(history.trace)
        try:
            with quiet:
                explorer = Explorer(history, shelf, changed, asked)
                ids = [run.run for run in runs]
                if args.debug:
                    from retroact.cli import turns

                    wish = turns.Asked(schedule=args.schedule, options=asked, breaks=args.breaks, changed=changed)
                    found = turns.perform(history, shelf, explorer, runs, wish)
                else:
                    found = explorer.perform(ids, args.schedule) if args.schedule else explorer.explore(ids, progress)
        finally:
            shelf.close()
    return NO if found is None else _print(found, args)


def _print(found: Exploration | Play, args: argparse.Namespace) -> int:
    from retroact.retroaction.exploration import Exploration

    if args.json:
        print_json(exploration_value(found, args) if isinstance(found, Exploration) else play_value(found))
    elif isinstance(found, Exploration):
        _show(found, args)
    else:
        _show_play(found)
    return 0 if found.clean else NO


def _explorable(runs: Sequence[Run], changed: Registry | None, args: argparse.Namespace) -> list[Run]:
    from retroact.cli.shown import count
    from retroact.function.kind import Kind

    found = [run for run in runs if run.kind != Kind.STEP.value and (changed is None or run.function in changed)]
    if len(found) < len(runs):
        note(f"{count(len(runs) - len(found), 'run')} left out: steps, and functions that the changed code does not have")
    if not found:
        raise selection.nothing(args)
    return found


def _options(args: argparse.Namespace) -> Options:
    from retroact.retroaction.exploration import Options, StepPolicy, Unrecorded

    given = {name: value for name in ("schedules", "seconds", "seed") if (value := getattr(args, name)) is not None}
    for name, value in given.items():
        if value <= 0 and name != "seed":
            raise BadRequest(problem=f"--{name} {value} leaves nothing to be done", remedy="Give a number above 0")
    steps = {name: StepPolicy(Unrecorded.MOCK) for name in args.mock}
    steps.update({name: StepPolicy(Unrecorded.LIVE) for name in args.live})
    for text in args.answer:
        name, _, value = text.partition("=")
        try:
            steps[name.strip()] = StepPolicy(Unrecorded.MOCK, json.loads(value), has_result=True)
        except ValueError:
            problem = f"--answer {text!r} is not STEP=JSON"
            raise BadRequest(problem=problem, remedy="""Name a step and its result: --answer 'charge="paid"'""") from None
    return Options(preemptions=_preemptions(args.preemptions), serial=args.serial, steps=steps, **given)


def _preemptions(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal():
        raise BadRequest(problem=f"--preemptions {text!r} is no bound", remedy="Give a number from 0, or all")
    return int(text)


# --- for people -------------------------------------------------------------------------------------------------------------


def _show(found: Exploration, args: argparse.Namespace) -> None:
    from retroact.cli.shown import count

    runs = ", ".join(run.run for run in found.runs)
    out(f"{count(len(found.runs), 'run')} from the state of version {found.version}: {runs}")
    if found.left_out:
        text = f"{count(found.left_out, 'transaction')} of other runs in that time left out: name those runs too to have them take part"
        out(paint(text, "dim"))
    out()
    _show_counts(found)
    worst = found.worst
    if worst is not None:
        _show_smallest(found, worst, args)
        for name, play in found.smallest.items():
            if play is not worst:
                out(f"The smallest schedule for {paint(name, 'bold')}: {_size(play)}")
                out(f"  {_command(found, play, args)}")
                out()
    _show_verdict(found)


def _show_counts(found: Exploration) -> None:
    from retroact.cli.shown import count

    serial = f"no two equivalent; {count(found.serial_orders, 'is a serial order', 'are serial orders')} of the runs"
    violating = ", ".join(f"{name}{f' in {number:,}' if len(found.by_name) > 1 else ''}" for name, number in found.by_name.items())
    rows = [
        ["explored", f"{found.explored:,}", serial],
        ["skipped", f"{found.skipped:,}", "beginnings equivalent to one that was gone on with"],
        ["violating", Cell(f"{found.violating:,}", "red" if found.violating else "green"), violating],
    ]
    if found.undecided:
        rows.append(["undecided", Cell(f"{found.undecided:,}", "yellow"), "a step has no recorded outcome in them"])
    if found.given_up:
        rows.append(["given up", Cell(f"{found.given_up:,}", "yellow"), f"longer than {found.options.longest:,} transactions"])
    out(paint("Schedules", "bold"))
    table(["", "", ""], rows, right=(1,), indent="  ")
    bound = (
        "any number of preemptions" if found.options.preemptions is None else f"at most {count(found.options.preemptions, 'preemption')}"
    )
    out(paint(f"  {bound}, seed {found.options.seed}; {count(found.executed, 'transaction')} executed in {found.seconds:.2f} s", "dim"))
    out()
    if found.undecided_because:
        out(f"The first of the undecided: {found.undecided_because} Or take a result from the record: --mock STEP.")
        out()
    if not found.invariants:
        out(paint("No invariant is declared" + ("" if found.options.serial else ": only --serial could find something wrong"), "yellow"))
        out()
    if found.broken_before:
        out(paint(f"Broken before any of the runs, and not counted until it holds: {', '.join(found.broken_before)}", "yellow"))
        out()


def _show_smallest(found: Exploration, worst: Play, args: argparse.Namespace) -> None:
    out(paint(f"The smallest violating schedule: {_size(worst)}", "bold"))
    out()
    _draw(worst, worst.telling)
    for line in worst.explanation:
        out(line)
    out(_serially(found))
    out()
    out("To run just this schedule (and with --debug at its end, to stop in each of its transactions):")
    out(f"  {_command(found, worst, args)}")
    out()


def _size(play: Play) -> str:
    from retroact.cli.shown import count

    return f"{count(play.preemptions, 'preemption')}, {count(play.telling, 'transaction')}"


def _serially(found: Exploration) -> str:
    """What the serial orders say about it."""
    if not found.all_serial:
        return "Whether a serial order does it too is not known: not all were looked at."
    orders = "looked at in the one serial order" if found.serial_orders == 1 else f"looked at in {found.serial_orders:,} serial orders"
    if found.serial_violating:
        return f"It takes no race: of {found.serial_orders:,} serial orders {found.serial_violating:,} go wrong too."
    return f"It takes a race: when the runs follow one another, nothing goes wrong ({orders})."


def _show_verdict(found: Exploration) -> None:
    if found.violated:
        seen = f"in {found.violating:,} of {found.explored:,} schedules" if found.violating else "in a schedule not followed to its end"
        out(f"{paint('not clean', 'red')}: something goes wrong {seen}")
    elif found.exhausted:
        out(f"{paint('not known', 'yellow')}: nothing went wrong, but {found.exhausted} ran out before all schedules were looked at")
    elif not found.clean:
        out(f"{paint('not known', 'yellow')}: nothing went wrong in the schedules that could be decided")
    else:
        rest = "; others need more preemptions" if found.bounded else ""
        out(f"{paint('clean', 'green')}: nothing goes wrong in any schedule{' within the bound' if found.bounded else ''}{rest}")
    if found.violated and found.exhausted:
        out(paint(f"{found.exhausted} ran out before all schedules were looked at", "yellow"))


def _show_play(play: Play) -> None:
    _draw(play, len(play.taken))
    for line in play.explanation:
        out(line)
    if play.explanation:
        out()
    out(paint("Outcomes", "bold"))
    from retroact.cli.shown import outcome

    rows = [
        [
            Cell(ending.run.run, "bold"),
            ending.run.function,
            Cell(f"undecided: {ending.undecided}", "yellow") if ending.undecided else outcome(ending.outcome),
        ]
        for ending in play.endings
    ]
    table(["run", "function", "outcome"], rows, indent="  ")
    out()
    if play.serial is not None:
        out(f"Equals some serial order: {paint('yes', 'green') if play.serial else paint('no', 'red')}")
    if play.clean:
        out(f"{paint('clean', 'green')}: schedule {play.schedule}")
    else:
        broken = ", ".join(play.broken) or ("a run could not be decided" if play.serial is not False else "no serial order does this")
        out(f"{paint('not clean', 'red')}: {broken}; schedule {play.schedule}")


def _draw(play: Play, until: int) -> None:
    from retroact.cli.picture import draw
    from retroact.diagram.moments import taken_moments

    draw(taken_moments(play.taken[:until]), head="turn")


def _command(found: Exploration, play: Play, args: argparse.Namespace) -> str:
    """What to type to run one schedule. What follows the last turn that tells something goes on by itself."""
    from retroact.retroaction.exploration import Schedule

    words = ["retroact", "retro", *(run.run for run in found.runs)]
    words += ["--schedule", str(Schedule(play.schedule.turns[: play.telling]))]
    for option, value in (("--with", args.changed), ("--db", args.db)):
        words += [option, str(value)] if value else []
    words += ["--serial"] if args.serial else []
    for option in ("answer", "mock", "live"):
        for value in getattr(args, option):
            words += [f"--{option}", value]
    return shlex.join(words)


# --- for programs -----------------------------------------------------------------------------------------------------------


def exploration_value(found: Exploration, args: argparse.Namespace) -> dict[str, Any]:
    """What was found, as JSON."""
    return {
        "clean": found.clean,
        "runs": [run.run for run in found.runs],
        "version": found.version,
        "invariants": list(found.invariants),
        "broken_before": list(found.broken_before),
        "preemptions": found.options.preemptions,
        "seed": found.options.seed,
        "explored": found.explored,
        "skipped": found.skipped,
        "violating": found.violating,
        "violations": dict(found.by_name),
        "undecided": found.undecided,
        "undecided_because": found.undecided_because,
        "given_up": found.given_up,
        "serial_orders": found.serial_orders,
        "all_serial": found.all_serial,
        "serial_violating": found.serial_violating,
        "exhausted": found.exhausted,
        "bounded": found.bounded,
        "left_out": found.left_out,
        "executed": found.executed,
        "seconds": found.seconds,
        "smallest": {name: {**play_value(play), "command": _command(found, play, args)} for name, play in found.smallest.items()},
    }


def play_value(play: Play) -> dict[str, Any]:
    """One schedule that was run, as JSON."""
    from retroact.cli.values import change_value, outcome_value, parsed

    return {
        "clean": play.clean,
        "schedule": str(play.schedule),
        "telling": play.telling,
        "preemptions": play.preemptions,
        "broken": dict(play.broken),
        "serial": play.serial,
        "explanation": list(play.explanation),
        "runs": [{"run": e.run.run, **outcome_value(e.outcome), "undecided": e.undecided} for e in play.endings],
        "transactions": [
            {
                "turn": taken.place,
                "run": taken.run,
                "function": taken.function,
                "arguments": parsed(taken.arguments),
                **outcome_value(taken.outcome),
                "changes": [change_value(change) for change in taken.changes],
                "broke": list(taken.broke),
            }
            for taken in play.taken
        ],
    }
