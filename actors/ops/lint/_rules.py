"""Rules: what replayed code must not do, why, and what to write instead.

A code keeps its meaning for ever: it stands in other people's `# noqa` comments.
"""

from __future__ import annotations

import random
from typing import Final, NamedTuple, final


@final
class Rule(NamedTuple):
    """What is refused: `message` has a place for the text that is refused."""

    code: str
    message: str

    def told(self, what: str) -> str:
        """The message about one piece of code."""
        return self.message.format(what)


CLOCK: Final = Rule("PER001", "`{}` reads a clock, and a replay would read another time: call `current_actor().now()`")
SLEEP: Final = Rule("PER002", "`{}` blocks the host with all its actors: await `asyncio.sleep(…)`, which is a durable timer")
RANDOM: Final = Rule("PER003", "`{}` draws anew in each replay: draw from `current_actor().random`")
UUID: Final = Rule("PER004", "`{}` makes another id in each replay: call `current_actor().uuid4()`")
PROCESS: Final = Rule(
    "PER005", "`{}` may differ where this is replayed: read it in a `@step`, or give it to the host, as one of its `resources`"
)
OUTSIDE: Final = Rule("PER006", "`{}` does I/O, which each replay would do again: do it in a `@step`, whose outcome is recorded")
LOOP: Final = Rule("PER007", "`{}` needs a thread, a process or a socket, and an actor has none (NotDurable): do it in a `@step`")
ORDER: Final = Rule("PER008", "`{}` is a set, and its order differs from process to process: go through `sorted(…)` of it")
COMPLETED: Final = Rule(
    "PER009", "`{}` over coroutines takes them in the order of their addresses: use `asyncio.gather`, or make tasks of them first"
)
GATHERED: Final = Rule("PER010", "`{}` over `gather(…)` wakes in the order of addresses: await `asyncio.gather` itself, or wait for tasks")

RULES: Final = (CLOCK, SLEEP, RANDOM, UUID, PROCESS, OUTSIDE, LOOP, ORDER, COMPLETED, GATHERED)


def _of(module: str, names: str) -> tuple[str, ...]:
    return tuple(f"{module}.{name}" for name in names.split())


# Refused wherever they are mentioned: who hands on a function means it to be called.
MENTIONED: Final[dict[str, Rule]] = {
    **dict.fromkeys(
        (
            *_of("time", "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time process_time_ns"),
            *_of("time", "thread_time thread_time_ns clock_gettime clock_gettime_ns"),
            *_of("datetime", "datetime.now datetime.utcnow datetime.today date.today"),
            "timeit.default_timer",
        ),
        CLOCK,
    ),
    "time.sleep": SLEEP,
    **dict.fromkeys(_of("random", " ".join(name for name in random.__all__ if name != "Random")), RANDOM),
    **dict.fromkeys(_of("secrets", "SystemRandom choice randbelow randbits token_bytes token_hex token_urlsafe"), RANDOM),
    **dict.fromkeys(_of("os", "urandom getrandom"), RANDOM),
    **dict.fromkeys(_of("uuid", "uuid1 uuid4 uuid6 uuid7"), UUID),
    **dict.fromkeys(_of("os", "environ environb getenv getenvb getpid getppid getcwd getlogin cpu_count uname"), PROCESS),
    **dict.fromkeys(("sys.argv", "getpass.getuser", "socket.gethostname", "platform.node"), PROCESS),
    **dict.fromkeys(("builtins.open", "builtins.input", "io.open"), OUTSIDE),
    **dict.fromkeys(_of("os", "open read write popen system listdir scandir walk stat lstat remove unlink rename replace"), OUTSIDE),
    **dict.fromkeys(_of("os", "mkdir makedirs rmdir removedirs chmod symlink link utime truncate kill"), OUTSIDE),
    **dict.fromkeys(_of("os.path", "exists getmtime getsize isdir isfile islink realpath"), OUTSIDE),
    **dict.fromkeys(_of("asyncio", "to_thread open_connection open_unix_connection start_server start_unix_server"), LOOP),
    **dict.fromkeys(_of("asyncio", "create_subprocess_exec create_subprocess_shell"), LOOP),
    **dict.fromkeys(_of("asyncio.subprocess", "create_subprocess_exec create_subprocess_shell"), LOOP),
    **dict.fromkeys(_of("anyio", "connect_tcp connect_unix create_tcp_listener open_file run_process open_process"), LOOP),
    **dict.fromkeys(_of("anyio", "to_thread.run_sync to_process.run_sync to_interpreter.run_sync"), LOOP),
    **dict.fromkeys(("threading.Thread", "threading.Timer", "multiprocessing.Process", "multiprocessing.Pool"), LOOP),
    **dict.fromkeys(_of("concurrent.futures", "ThreadPoolExecutor ProcessPoolExecutor InterpreterPoolExecutor"), LOOP),
}

# Refused where they are called without arguments: given a seed or a time, they make the same of it each time.
BARE_CALLS: Final[dict[str, Rule]] = {
    **dict.fromkeys(_of("time", "localtime gmtime ctime asctime"), CLOCK),
    **dict.fromkeys(("random.Random", "numpy.random.default_rng", "numpy.random.RandomState"), RANDOM),
}

# Whatever is called in them is refused, but for what is in PURE or makes an error.
MODULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(("socket", "subprocess", "requests", "httpx", "urllib.request", "urllib3", "aiohttp", "http.client"), OUTSIDE),
    **dict.fromkeys(("shutil", "glob", "tempfile", "sqlite3", "smtplib", "ftplib"), OUTSIDE),
    "numpy.random": RANDOM,
}
PURE: Final = {
    *_of("socket", "htonl htons inet_aton inet_ntoa inet_ntop inet_pton ntohl ntohs"),
    *_of("urllib.request", "pathname2url url2pathname Request"),
    *_of("httpx", "URL Headers QueryParams Timeout Limits Request Response"),
    *_of("glob", "escape has_magic translate"),
    *_of("aiohttp", "ClientTimeout FormData BasicAuth"),
    "subprocess.list2cmdline",
    *BARE_CALLS,
}
ERRORS: Final = ("Error", "Exception", "Expired", "Redirects")

# Refused by their name alone, whoever has them.
METHODS: Final[dict[str, Rule]] = {
    "run_in_executor": LOOP,
    **dict.fromkeys(("read_bytes", "read_text", "write_bytes", "write_text"), OUTSIDE),
}
PATH_METHODS: Final = frozenset(
    {
        *("chmod", "exists", "glob", "is_dir", "is_file", "is_symlink", "iterdir", "lstat", "mkdir", "open", "rename", "replace"),
        *("rglob", "rmdir", "samefile", "stat", "symlink_to", "touch", "unlink", "walk"),
    }
)

# What makes the order of a set visible, and what takes things in any order.
ORDERED: Final = frozenset(_of("builtins", "enumerate filter iter list map reversed tuple zip"))
UNORDERED: Final = frozenset(_of("builtins", "all any frozenset len max min set sorted sum"))


def rule_of_mention(name: str) -> Rule | None:
    """The rule that refuses to mention this, by its full name."""
    return MENTIONED.get(name)


def rule_of_call(name: str, *, bare: bool) -> Rule | None:
    """The rule that refuses to call this, by its full name; `bare` is without arguments."""
    if name in BARE_CALLS:
        return BARE_CALLS[name] if bare else None
    module = next((module for module in MODULES if name.startswith(f"{module}.")), None)
    is_free = module is None or name in PURE or name in MENTIONED or name.endswith(ERRORS)
    return None if is_free or module is None else MODULES[module]
