"""Where runs are stored: a SQLite file, or a server that may not answer."""

import contextlib
import http.client
import re
import sqlite3
import ssl
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

# Seconds.
_CONNECT_TIMEOUT = 2
ANSWER_TIMEOUT = 5


def locked(database):
    """Returns a context that one process at a time enters, if there is a SQLite file."""
    if database is None:
        return contextlib.nullcontext()
    from filelock import FileLock

    return FileLock(database.with_name(f".{database.name}.lock"), timeout=60)


def absolute(uri):
    """Returns the URI with an absolute path, and that path, if it names a SQLite file."""
    match = re.fullmatch(r"sqlite:///([^?:]+)(\?.*)?", uri)
    if match is None:
        return uri, None
    path = Path(match[1]).absolute()
    return f"sqlite:///{path}{match[2] or ''}", path


def probe(uri, database):
    """Finds out at once what MLflow would find out after minutes of retries.

    Raises:
        OSError: if a server refuses the connection or does not answer.
        sqlite3.Error: if a SQLite file cannot be written, for another reason than that another
            process is writing it.
    """
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(database, timeout=0)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
        return
    url = urlsplit(uri)
    if url.scheme not in ("http", "https"):
        return
    if url.scheme in getproxies() and not proxy_bypass(url.hostname):
        return
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname, url.port, timeout=_CONNECT_TIMEOUT)
    # Any answer is one, be it that MLflow has to know a certificate or a password.
    with (
        contextlib.closing(connection),
        contextlib.suppress(ssl.SSLError, http.client.HTTPException),
    ):
        connection.connect()
        connection.sock.settimeout(ANSWER_TIMEOUT)
        connection.request("GET", f"{url.path.rstrip('/')}/health")
        connection.getresponse()
