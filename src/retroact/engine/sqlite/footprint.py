"""Finds the footprint of a SQL text from the program that SQLite compiles it to.

The program names every b-tree that it opens, those of triggers, foreign keys and AUTOINCREMENT included, and how each is sought. A seek
whose key comes straight from parameters or constants is a ROW or a KEY; everything else is the whole TABLE. Instructions that are not
known are taken to write wherever they could.

This module must not know what footprints are compared with.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import apsw

from retroact.engine.footprint import OPAQUE, Access, Constant, Footprint, Parameter, Reach, Term
from retroact.engine.sqlite.queries import fetch

#: Table-valued functions that read nothing but their arguments and the schema.
_STATELESS = {"json_each", "json_tree", "pragma_table_info", "pragma_table_xinfo", "pragma_index_list", "pragma_index_info"}
_SEEKS_ROW = {"SeekRowid", "NotExists"}
_SEEKS_KEY = {"Found", "NotFound", "NoConflict"}
_SCANS = {
    "Rewind", "Last", "SeekGT", "SeekLE", "SeekLT", "Count", "IfSizeBetween", "IfSmaller", "IfEmpty", "SeekScan", "SeekEnd", "RowCell",
}  # fmt: skip
_OPENS = {"OpenRead", "OpenWrite", "ReopenIdx"}
#: Instructions that write a register, by the operand that names it.
_OUT_P2 = {
    "Variable",
    "Integer",
    "Int64",
    "Real",
    "String",
    "String8",
    "Blob",
    "Rowid",
    "IdxRowid",
    "NewRowid",
    "SCopy",
    "IntCopy",
    "Param",
}
_OUT_P3 = {
    "Column", "MakeRecord", "Add", "Subtract", "Multiply", "Divide", "Remainder", "Concat", "Function", "PureFunc", "And", "Or", "BitAnd",
    "BitOr", "ShiftLeft", "ShiftRight", "RowSetRead", "VColumn", "AggStep", "AggValue",
}  # fmt: skip
#: Instructions that write none, or only convert one in place: values that a conversion would change are not compared (`Access.values`).
_OUT_NONE = {
    "Init", "Goto", "Halt", "HaltIfNull", "Transaction", "OpenRead", "OpenWrite", "ReopenIdx", "OpenEphemeral", "OpenAutoindex", "OpenDup",
    "SorterOpen", "OpenPseudo", "Close", "SeekRowid", "NotExists", "SeekGE", "SeekGT", "SeekLE", "SeekLT", "IdxGT", "IdxGE", "IdxLT",
    "IdxLE", "Found", "NotFound", "NoConflict", "Rewind", "Last", "Next", "Prev", "SorterNext", "SorterSort", "SorterInsert", "Sort",
    "ResultRow", "Insert", "Delete", "IdxInsert", "IdxDelete", "Noop", "IsNull", "NotNull", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "If",
    "IfNot",
    "DeferredSeek", "FinishSeek", "NullRow", "FkCounter", "FkIfZero", "FkCheck", "ResetCount", "Explain", "Once", "Affinity", "MustBeInt",
    "RealAffinity", "SoftNull", "TypeCheck", "CollSeq", "ReleaseReg", "TableLock", "Expire", "VOpen", "VFilter", "VNext", "Jump", "Compare",
    "Permutation", "Trace", "SeekHit", "IfNoHope", "CursorHint", "ColumnsUsed", "Abortable", "Program", "ResetSorter", "ElseEq",
}  # fmt: skip


class _Op(NamedTuple):
    """One instruction."""

    addr: int
    name: str
    p1: int
    p2: int
    p3: int
    p4: Any
    p5: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Tree:
    """A b-tree: a table, or an index of one with the columns of its key, and whether they hold text; None: it cannot be compared."""

    table: str
    is_index: bool
    key: tuple[tuple[str, bool] | None, ...] = ()


class Footprints:
    """The footprints of SQL texts on a database with one schema."""

    def __init__(self, database: apsw.Connection) -> None:
        self._database = database
        self._known: dict[str, Footprint] = {}
        self._trees: dict[int, _Tree] | None = None

    def of(self, sql: str) -> Footprint:
        """What a text can touch; opaque when SQLite cannot compile it."""
        found = self._known.get(sql)
        if found is None:
            found = self._known[sql] = self._find(sql)
        return found

    def forget(self) -> None:
        """The schema is another."""
        self._known.clear()
        self._trees = None

    def _find(self, sql: str) -> Footprint:
        if self._trees is None:
            self._trees = _trees(self._database)
        try:
            program, names, virtual = _compiled(self._database, sql)
        except apsw.Error:
            return OPAQUE
        if virtual - _STATELESS or not program:
            return OPAQUE
        return _Reading(program, names, self._trees).footprint()


def _compiled(database: apsw.Connection, sql: str) -> tuple[list[_Op], tuple[str, ...], set[str]]:
    """The program of a text, the names of its parameters, and the virtual tables that it opens."""
    names: tuple[str, ...] = ()
    read: set[str] = set()

    def authorize(action: int, first: str | None, _second: str | None, _schema: str | None, _trigger: str | None) -> int:
        if action == apsw.SQLITE_PRAGMA:
            read.add(f"pragma {first}")
        elif action == apsw.SQLITE_READ and first:
            read.add(first)
        return apsw.SQLITE_OK

    def look(cursor: apsw.Cursor, _sql: str, _parameters: Any) -> bool:
        nonlocal names
        names = tuple(str(name) for name in cursor.bindings_names)
        return True

    cursor = database.cursor()
    cursor.exec_trace = look
    outer = database.authorizer
    database.authorizer = authorize
    try:
        rows: list[Any] = cursor.execute(f"explain {sql}", collections.defaultdict(lambda: None), can_cache=False).fetchall()
    except (TypeError, ValueError) as error:
        raise apsw.SQLError(str(error)) from error
    finally:
        database.authorizer = outer
        cursor.close()
    program = [_Op(*row[:7]) for row in rows]
    virtual: set[str] = set()
    if any(op.name == "VOpen" for op in program):
        tables = {str(name) for (name,) in fetch(database, "select name from pragma_table_list where schema = 'main' and type = 'table'")}
        views = {str(name) for (name,) in fetch(database, "select name from sqlite_schema where type = 'view'")}
        virtual = read - tables - views
    return program, names, virtual | {name for name in read if name.startswith("pragma ")}


def _trees(database: apsw.Connection) -> dict[int, _Tree]:
    """Every b-tree of a database by its root page."""
    found: dict[int, _Tree] = {1: _Tree("sqlite_schema", is_index=False)}
    types: dict[str, dict[str, str]] = {}
    plain = {str(name) for name, without in fetch(database, "select name, wr from pragma_table_list where schema = 'main'") if not without}
    for name, table, kind, root in fetch(database, "select name, tbl_name, type, rootpage from sqlite_schema where rootpage > 0"):
        if table not in types:
            columns = fetch(database, "select name, type from pragma_table_xinfo(?)", (table,))
            types[table] = {str(column): str(declared or "") for column, declared in columns}
        if kind == "index":
            found[int(root)] = _Tree(str(table), is_index=True, key=_key(database, str(name), types[table]))
        elif table in plain:
            found[int(root)] = _Tree(str(table), is_index=False)
        else:
            primary = fetch(database, "select name from pragma_index_list(?) where origin = 'pk'", (table,))
            key = _key(database, str(primary[0][0]), types[table]) if primary else ()
            found[int(root)] = _Tree(str(table), is_index=True, key=key)
    return found


def _key(database: apsw.Connection, index: str, types: dict[str, str]) -> tuple[tuple[str, bool] | None, ...]:
    """The columns of an index. What is not compared byte by byte, or has neither text nor integers for sure, is None."""
    rows = fetch(database, "select name, coll from pragma_index_xinfo(?) where key order by seqno", (index,))
    return tuple(None if name is None or coll != "BINARY" else _typed(str(name), types.get(str(name), "")) for name, coll in rows)


def _typed(column: str, declared: str) -> tuple[str, bool] | None:
    """SQLite's rules of affinity, as far as values of Python's `int` and `str` are kept as they are."""
    upper = declared.upper()
    if "INT" in upper:
        return column, False
    if any(part in upper for part in ("CHAR", "CLOB", "TEXT")):
        return column, True
    return None


class _Reading:
    """A program, being understood."""

    def __init__(self, program: list[_Op], names: tuple[str, ...], trees: dict[int, _Tree]) -> None:
        self._names = names
        self._trees = trees
        starts = [i for i, op in enumerate(program) if op.addr == 0] + [len(program)]
        #: What runs first; behind it stand the programs of triggers and of what foreign keys do.
        self._main = program[: starts[1]]
        self._others = program[starts[1] :]
        self._cursors: dict[int, set[int]] = collections.defaultdict(set)
        self._writers: dict[int, list[_Op]] = collections.defaultdict(list)
        self._accesses: dict[Access, None] = {}
        self._opaque = False

    def footprint(self) -> Footprint:
        """What the program touches."""
        everything = (*self._main, *self._others)
        writes = {self._table(op.p2) for op in everything if op.name == "OpenWrite"}
        writes |= {self._table(op.p1) for op in everything if op.name == "Clear"}
        for op in self._others:
            if op.name in _OPENS or op.name == "Clear":
                self._whole(self._table(op.p2 if op.name in _OPENS else op.p1))
        for op in self._main:
            if op.name in _OPENS:
                self._cursors[op.p1].add(op.p2)
            for register in _written(op):
                self._writers[register].append(op)
        for op in self._main:
            self._understand(op)
        if self._opaque:
            return OPAQUE
        return Footprint(tuple(self._accesses), writes=frozenset(writes))

    def _understand(self, op: _Op) -> None:
        match op.name:
            case "Clear":
                self._whole(self._table(op.p1))
            case "NewRowid":
                self._each(op.p1, lambda tree: self._add(Access(tree.table, Reach.NEXT_ROWID)))
            case "Insert":
                self._each(op.p1, lambda tree: self._row(tree, op))
            case "SeekGE":
                self._each(op.p1, lambda tree: self._range(tree, op))
            case name if name in _SEEKS_ROW:
                self._each(op.p1, lambda tree: self._row(tree, op))
            case name if name in _SEEKS_KEY:
                self._each(op.p1, lambda tree: self._found(tree, op))
            case name if name in _SCANS:
                self._each(op.p1, lambda tree: self._whole(tree.table))
            case "Destroy" | "ParseSchema" | "CreateBtree" | "DropTable" | "DropIndex" | "DropTrigger" | "SetCookie" | "Pagecount":
                self._opaque = True
            case _:
                pass

    def _each(self, cursor: int, do: Callable[[_Tree], None]) -> None:
        """For each tree that a cursor may stand for; one that stands for none is a temporary table."""
        for root in self._cursors.get(cursor, ()):
            tree = self._trees.get(root)
            if tree is None:
                self._opaque = True
            else:
                do(tree)

    def _row(self, tree: _Tree, op: _Op) -> None:
        """A row by its rowid. One that was found on another way is covered by that way."""
        terms: set[Term] = set()
        for writer in self._sources(op.p3):
            term = self._term(writer)
            if term is not None:
                terms.add(term)
            elif writer.name not in ("NewRowid", "Null") and not self._of_same(writer, tree):
                self._whole(tree.table)
                return
        for term in terms:
            self._add(Access(tree.table, Reach.ROW, terms=(term,)))

    def _of_same(self, writer: _Op, tree: _Tree) -> bool:
        """Whether a rowid comes from a row of the same table, on which a cursor stands."""
        roots = self._cursors.get(writer.p1, set()) if writer.name in ("Rowid", "IdxRowid") else set[int]()
        return bool(roots) and all(root in self._trees and self._trees[root].table == tree.table for root in roots)

    def _range(self, tree: _Tree, op: _Op) -> None:
        """A seek: with the same key for its upper end it is an equality."""
        equal = any(
            end.name == "IdxGT" and (end.p1, end.p3, end.p4) == (op.p1, op.p3, op.p4)
            for end in self._main[op.addr + 1 : op.addr + 4]
        )  # fmt: skip
        if tree.is_index and equal:
            self._keyed(tree, op.p3, int(op.p4))
        else:
            self._whole(tree.table)

    def _found(self, tree: _Tree, op: _Op) -> None:
        """A probe of an index, by registers or by one packed record."""
        width = int(op.p4 or 0)
        first = op.p3
        if width == 0:
            makers = self._writers.get(op.p3, [])
            if len(makers) != 1 or makers[0].name != "MakeRecord":
                self._whole(tree.table)
                return
            first, width = makers[0].p1, makers[0].p2
        if tree.is_index:
            self._keyed(tree, first, min(width, len(tree.key)))
        else:
            self._whole(tree.table)

    def _keyed(self, tree: _Tree, first: int, width: int) -> None:
        columns: list[tuple[str, bool]] = []
        terms: list[Term] = []
        for column, register in zip(tree.key[:width], range(first, first + width), strict=False):
            sources = self._sources(register)
            term = self._term(sources[0]) if len(sources) == 1 else None
            if column is None or term is None:
                break  # a shorter key is a wider one
            columns.append(column)
            terms.append(term)
        if columns:
            names, texts = tuple(name for name, _ in columns), tuple(text for _, text in columns)
            self._add(Access(tree.table, Reach.KEY, names, tuple(terms), texts))
        else:
            self._whole(tree.table)

    def _sources(self, register: int, depth: int = 8) -> list[_Op]:
        """The instructions that a register's value may come from, through copies."""
        found: list[_Op] = []
        for op in self._writers.get(register, []):
            if op.name in ("SCopy", "IntCopy") and depth:
                found += self._sources(op.p1, depth - 1)
            elif op.name == "Copy" and depth:
                found += self._sources(op.p1 + register - op.p2, depth - 1)
            else:
                found.append(op)
        return found

    def _term(self, op: _Op) -> Term | None:
        if op.name == "Variable":
            return Parameter(self._names[op.p1 - 1])
        if op.name == "Integer":
            return Constant(op.p1)
        if op.name == "Int64":
            return Constant(int(op.p4))
        return Constant(str(op.p4)) if op.name == "String8" else None

    def _whole(self, table: str) -> None:
        self._add(Access(table, Reach.TABLE))

    def _add(self, access: Access) -> None:
        self._accesses[access] = None

    def _table(self, root: int) -> str:
        tree = self._trees.get(root)
        if tree is None:
            self._opaque = True
            return ""
        return tree.table


def _written(op: _Op) -> Iterable[int]:
    """The registers that an instruction may write."""
    if op.name in _OUT_NONE:
        return ()
    if op.name in _OUT_P2:
        return (op.p2,)
    if op.name in _OUT_P3:
        return (op.p3,)
    if op.name == "Null":
        return range(op.p2, max(op.p2, op.p3) + 1)
    if op.name == "Copy":
        return range(op.p2, op.p2 + op.p3 + 1)
    return (op.p1, op.p2, op.p3)
