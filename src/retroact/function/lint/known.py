"""What is known of names outside of a project: which of them keep a function from doing the same again, by the rule that says so.

This module must not know syntax trees.
"""

from __future__ import annotations

_GIVEN_CLOCK = ("time.time", "time.time_ns", "time.gmtime", "datetime.datetime.now", "datetime.datetime.utcnow")
_LOCAL_TIME = (
    "time.localtime", "time.ctime", "time.asctime", "time.strftime", "time.mktime", "time.tzname", "time.timezone",
    "datetime.datetime.today", "datetime.date.today", "locale.getlocale", "locale.setlocale", "locale.localeconv",
    "locale.getpreferredencoding", "locale.format_string", "locale.currency", "locale.str",
)  # fmt: skip
_REAL_CLOCK = tuple(
    f"time.{name}{suffix}"
    for name in ("monotonic", "perf_counter", "process_time", "thread_time", "clock_gettime")
    for suffix in ("", "_ns")
)
_MACHINE = (
    "os.getpid", "os.getppid", "os.uname", "os.cpu_count", "os.getlogin", "os.getcwd", "os.getuid", "os.times", "os.getloadavg",
    "sys.argv", "sys.version", "sys.version_info", "sys.platform", "socket.gethostname", "socket.getfqdn", "uuid.getnode",
    "threading.get_ident", "threading.current_thread", "threading.active_count", "getpass.getuser",
)  # fmt: skip
_FILES = (
    "builtins.open", "io.open", "os.open", "os.remove", "os.unlink", "os.rename", "os.replace", "os.mkdir", "os.makedirs", "os.rmdir",
    "os.listdir", "os.scandir", "os.walk", "os.stat", "os.path.exists", "os.path.isfile", "os.path.isdir", "os.path.getmtime",
    "os.path.getsize", "os.chmod", "os.truncate", "os.symlink", "os.link",
)  # fmt: skip
_PROCESSES = (
    "os.system", "os.popen", "os.fork", "os.kill", "os.abort", "os._exit", "os.execv", "os.execve", "os.execvp", "os.spawnv",
    "os.posix_spawn", "sys.exit", "signal.signal", "signal.alarm",
)  # fmt: skip
_TASKS = (
    "asyncio.create_task", "asyncio.ensure_future", "asyncio.gather", "asyncio.wait", "asyncio.as_completed", "asyncio.TaskGroup",
    "asyncio.wait_for", "asyncio.to_thread", "asyncio.run",
)  # fmt: skip

#: Names by rule, whether they are called or only handed on.
NAMES: dict[str, str] = {
    **dict.fromkeys(_GIVEN_CLOCK, "RT101"),
    **dict.fromkeys(_REAL_CLOCK, "RT102"),
    **dict.fromkeys(_LOCAL_TIME, "RT104"),
    **dict.fromkeys(_MACHINE, "RT107"),
    **dict.fromkeys(_FILES, "RT201"),
    **dict.fromkeys(_PROCESSES, "RT203"),
    **dict.fromkeys(_TASKS, "RT205"),
    **dict.fromkeys(("uuid.uuid1", "uuid.uuid4", "uuid.uuid6", "uuid.uuid7"), "RT103"),
    **dict.fromkeys(("os.urandom", "random.SystemRandom"), "RT105"),
    **dict.fromkeys(("builtins.id", "builtins.hash"), "RT108"),
    **dict.fromkeys(("time.sleep", "asyncio.sleep"), "RT109"),
    **dict.fromkeys(("os.environ", "os.environb", "os.getenv"), "RT207"),
    "builtins.input": "RT208",
    "builtins.print": "RT209",
}

#: What a called name begins with, by rule; the first that fits counts.
PREFIXES: tuple[tuple[str, str], ...] = (
    ("secrets.", "RT105"),
    ("random.", "RT103"),
    *((f"{name}.", "RT106") for name in ("numpy.random", "np.random", "torch.rand", "torch.random", "tensorflow.random", "faker", "names")),
    *((f"{name}.", "RT107") for name in ("platform",)),
    *((f"{name}.", "RT201") for name in ("shutil", "tempfile", "glob", "fileinput")),
    *((f"{name}.", "RT203") for name in ("subprocess", "multiprocessing", "pexpect", "sh")),
    *((f"{name}.", "RT204") for name in ("threading", "concurrent.futures", "_thread", "gevent", "trio", "anyio")),
    *(
        (f"{name}.", "RT202")
        for name in (
            "requests", "httpx", "urllib.request", "urllib3", "aiohttp", "http.client", "smtplib", "ftplib", "poplib", "imaplib",
            "telnetlib", "socket", "ssl", "boto3", "botocore", "stripe", "grpc", "websockets", "paramiko", "kafka", "pika",
        )
    ),
    *(
        (f"{name}.", "RT206")
        for name in (
            "sqlite3", "apsw", "psycopg", "psycopg2", "asyncpg", "pymysql", "MySQLdb", "mysql.connector", "sqlalchemy.create_engine",
            "redis", "pymongo", "duckdb", "cx_Oracle", "oracledb", "pyodbc", "aiosqlite", "peewee", "django.db",
        )
    ),
)  # fmt: skip

#: Methods of whatever object, when called.
METHODS: dict[str, str] = dict.fromkeys(("read_text", "write_text", "read_bytes", "write_bytes"), "RT201")

#: Names that a prefix fits, and that do no harm.
EXEMPT = frozenset(
    {
        "random.Random",  # without a seed it draws one, which is given; so do these of numpy
        "numpy.random.default_rng",
        "numpy.random.SeedSequence",
        "threading.Lock",
        "threading.RLock",
    }
)


def rule_for(name: str, *, called: bool) -> str | None:
    """The rule that a name outside of the project falls under."""
    exact = NAMES.get(name) or NAMES.get(name.rpartition(".")[0] if name.startswith(("os.environ", "sys.version_info")) else "")
    if exact is not None or not called or name in EXEMPT:
        return exact
    if name.endswith(("Error", "Exception")):
        return None
    return next((rule for prefix, rule in PREFIXES if name.startswith(prefix) or name == prefix[:-1]), None)
