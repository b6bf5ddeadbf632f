#!/usr/bin/env python3
"""A complete backup agent in Python: agent.py LIBRARY SET FILE, then send the statement that names SET.

LIBRARY is the path of libvdi_c.so. A backup goes to FILE.partial and takes FILE's place before the server reports success,
and never before it is proven to be complete. A restore reads FILE. An agent that is killed leaves FILE.partial, which the next
one overwrites. FILE.partial is locked, so that two agents with one FILE do not destroy each other's backup.

Named pipes and devices are written and read straight away, and never replaced. As FILE, - is standard output or input. Messages
go to standard error.

Only the standard library is used: the functions and numbers are those of vdi_c.h. With
VDI_LIBRARY=/opt/mssql/lib/libsqlvdi.so in the environment the server is SQL Server.
"""

import ctypes
import errno
import fcntl
import os
import signal
import stat
import sys
import time

VDF_REQUEST_COMPLETE, VDF_WRITE_MEDIA, VDF_COMPLETE_ENABLED = 0x2000, 0x10000, 0x40000
VDC_READ, VDC_WRITE, VDC_CLEAR_ERROR, VDC_FLUSH, VDC_COMPLETE = 1, 2, 3, 12, 19
SUCCESS, HANDLE_EOF, NOT_SUPPORTED, DISK_FULL, IO_DEVICE = 0, 38, 50, 112, 1117
VD_E_CLOSE = 0x8077000E - (1 << 32)
# How long the other end of a named pipe is waited for, in seconds.
PIPE_SECONDS = 30


class Config(ctypes.Structure):
    """vdi_config"""

    _fields_ = [
        (name, ctypes.c_uint32)
        for name in (
            "device_count", "features", "prefix_zone_size", "alignment", "soft_file_mark_block_size",
            "eom_warning_size", "server_time_out", "block_size", "max_io_depth", "max_transfer_size",
            "buffer_area_size",
        )
    ]


class Command(ctypes.Structure):
    """vdi_command"""

    _fields_ = [
        ("id", ctypes.c_uint32), ("code", ctypes.c_uint32), ("size", ctypes.c_int32),
        ("prefix_size", ctypes.c_uint32), ("position", ctypes.c_uint64),
        ("data", ctypes.c_void_p), ("prefix", ctypes.c_void_p),
    ]


class VdiError(Exception):
    """A call that failed: its status, and the library's text."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def load(path):
    """The library, with the types of the functions that are used here; a status other than 0 raises VdiError."""
    library = ctypes.CDLL(path)
    library.vdi_last_error_text.restype = ctypes.c_char_p

    def check(status, _function, _arguments):
        if status != 0:
            raise VdiError(status, library.vdi_last_error_text().decode())

    pointer, string, out = ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER
    for name, arguments in {
        "vdi_set_create": [string, string, out(Config), out(pointer)],
        "vdi_set_get_configuration": [pointer, ctypes.c_int64, out(Config)],
        "vdi_set_open_device": [pointer, string, out(pointer)],
        "vdi_set_signal_abort_because": [pointer, ctypes.c_uint32, string],
        "vdi_set_close": [pointer],
        "vdi_set_free": [pointer],
        "vdi_device_get_command": [pointer, ctypes.c_int64, out(Command)],
        "vdi_device_complete_command": [
            pointer, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64,
        ],
        "vdi_device_free": [pointer],
    }.items():
        function = getattr(library, name)
        function.argtypes, function.restype, function.errcheck = arguments, ctypes.c_int32, check
    return library


def say(text):
    """Messages are for people. A message that no process reads changes nothing."""
    try:
        os.write(2, f"{text}\n".encode())
    except OSError:
        pass


def is_same(found, stream):
    """Whether a stream of this program leads to a file. What is printed to a device such as /dev/null harms nothing."""
    try:
        return not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)) and os.path.samestat(found, os.fstat(stream))
    except OSError:
        return False


def take_standard(backup):
    """Standard output for a backup, or input for a restore. Nothing else of this process gets into it from here on."""
    stream, name = (1, "standard output") if backup else (0, "standard input")
    if os.isatty(stream):
        raise OSError(f"{name} is a terminal: redirect it to a file or a pipe")
    if backup and is_same(os.fstat(stream), 2):
        raise OSError(f"{name} is the same file as standard error: redirect that, with 2>agent.log for example")
    if backup and stat.S_ISREG(os.fstat(stream).st_mode):
        lock(stream, name)
    file = os.dup(stream)
    os.dup2(2 if backup else os.open(os.devnull, os.O_RDONLY), stream)
    return file


def open_partial(path):
    """A file that takes the place of another later, and that no other agent uses."""
    while True:
        file = os.open(path + ".partial", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(f"{path}.partial is no regular file: remove it, or choose another name")
        lock(file, path)
        # The agent that had it may have renamed or removed it meanwhile.
        if is_at(file, path + ".partial"):
            os.ftruncate(file, 0)
            return file
        os.close(file)


def is_at(file, path):
    """Whether a file that is open is still what a name leads to, and not what another program has put there."""
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except FileNotFoundError:
        return False


def lock(file, path):
    """Two backups in one file would destroy each other."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(f"{path} is being written by another agent: give every device a file of its own") from error


def open_special(path, mode):
    """A named pipe or a device for a backup."""
    # A block device is opened for one program only, and not while it is mounted.
    flags = os.O_WRONLY | os.O_NOCTTY | (os.O_EXCL if stat.S_ISBLK(mode) else 0)
    if not stat.S_ISFIFO(mode):
        file = os.open(path, flags)
        if os.isatty(file):
            raise OSError(f"{path} is a terminal: name a file")
        return file
    deadline = time.monotonic() + PIPE_SECONDS
    while True:
        try:
            file = os.open(path, flags | os.O_NONBLOCK)
            break
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() >= deadline:
                raise OSError(f"{path} is a named pipe that no process reads: start its reader first") from error
        time.sleep(0.05)
    lock(file, path)
    os.set_blocking(file, True)
    return file


class Medium:
    """The file: commands are carried out on it. After an error nothing is reported as a success any more."""

    def __init__(self, path, backup, announced):
        self.path, self.backup = path, backup
        # partial: what a backup is written to that takes the file's place. waits: a named pipe that had no writer so far.
        self.partial, self.waits = None, False
        # announced: VDC_COMPLETE will come, without it nothing is complete. flushed: a VDC_FLUSH came, and no VDC_WRITE after.
        self.announced, self.flushed = announced, False
        self.committed, self.failed, self.bytes = False, False, 0
        file = take_standard(backup) if path == "-" else self.open_target() if backup else self.open_source()
        self.file = open(file, "wb" if backup else "rb", buffering=0)

    def open_target(self):
        """What a backup is written to."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError as error:
            if os.path.islink(self.path):
                raise OSError(f"{self.path} is a symbolic link to a file that cannot be found") from error
        else:
            if is_same(found, 1) or is_same(found, 2):
                raise OSError(
                    f"{self.path} is where this program's standard output or error goes: name another file, or - for "
                    "standard output"
                )
            if not stat.S_ISREG(found.st_mode):
                return open_special(self.path, found.st_mode)
            self.path = os.path.realpath(self.path)
        file = open_partial(self.path)
        self.partial = self.path + ".partial"
        return file

    def open_source(self):
        """What a restore reads."""
        file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        if os.isatty(file):
            raise OSError(f"{self.path} is a terminal: name a file")
        self.waits = stat.S_ISFIFO(os.fstat(file).st_mode)
        os.set_blocking(file, not self.waits)
        return file

    def carry_out(self, command):
        """The code to complete the command with, and how many bytes were really transferred."""
        if command.code == VDC_CLEAR_ERROR:
            return SUCCESS, 0
        if self.failed:
            return IO_DEVICE, 0
        try:
            if command.code == VDC_WRITE:
                self.flushed = False
                return self.transfer(command, self.file.write, IO_DEVICE)
            if command.code == VDC_READ:
                return self.transfer(command, self.read, HANDLE_EOF)
            if command.code == VDC_FLUSH:
                self.flush()
                return SUCCESS, 0
            if command.code == VDC_COMPLETE:
                self.commit()
                return SUCCESS, 0
            return NOT_SUPPORTED, 0
        except OSError as error:
            say(f"agent.py: {error}")
            self.failed = True
            return (DISK_FULL if error.errno == errno.ENOSPC else IO_DEVICE), 0

    def transfer(self, command, move, code_if_short):
        """Moves bytes between the file and the shared memory itself."""
        size, done = command.size & 0xFFFFFFFF, 0
        memory = memoryview((ctypes.c_ubyte * size).from_address(command.data))
        while done < size:
            moved = move(memory[done:])
            if not moved:
                break
            done += moved
        self.bytes += done
        return (SUCCESS if done == size else code_if_short), done

    def read(self, memory):
        """Before a named pipe's first writer comes, a read finds an end that is none."""
        deadline = time.monotonic() + PIPE_SECONDS
        while self.waits:
            found = self.file.readinto(memory)
            if found == 0 and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            if found == 0:
                raise OSError(f"{self.path} is a named pipe that no process writes: start its writer first")
            self.waits = False
            os.set_blocking(self.file.fileno(), True)
            if found:
                return found
        return self.file.readinto(memory)

    def flush(self):
        """Only what is on the disk is written."""
        try:
            if self.backup:
                os.fsync(self.file.fileno())
        except OSError as error:
            # Pipes and some devices have nothing to be stored.
            if self.partial or error.errno != errno.EINVAL:
                raise
        self.flushed = True

    def commit(self):
        """Gives a backup that is complete its name, durably."""
        self.flush()
        if not self.backup or self.committed:
            return
        if not self.partial:
            self.committed = True
            return
        # It may have changed since it was opened.
        if os.path.lexists(self.path) and not stat.S_ISREG(os.lstat(self.path).st_mode):
            raise OSError(f"{self.path} is no regular file any more, and is not replaced")
        if not is_at(self.file.fileno(), self.partial):
            raise OSError(f"{self.partial} has been replaced or removed, so the backup cannot be renamed")
        os.rename(self.partial, self.path)
        self.committed = True
        directory = os.open(os.path.dirname(os.path.abspath(self.path)), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def closed_by_server(self):
        """A server that does not send VDC_COMPLETE has closed the device of a backup that is complete, once all is flushed."""
        if self.failed:
            raise OSError("the file failed; the backup or restore is not good")
        if self.backup and not self.committed and (self.announced or not self.flushed):
            missing = "VDC_COMPLETE did not come" if self.announced else "no VDC_FLUSH came after the last VDC_WRITE"
            raise OSError(f"the server closed the device of a backup that is not complete: {missing}")
        self.commit()

    def close(self):
        """A backup that is not complete leaves nothing."""
        # While it is still locked.
        if self.partial and not self.committed and is_at(self.file.fileno(), self.partial):
            os.unlink(self.partial)
        self.file.close()


def serve(library, device, medium):
    """Carries commands out until the server closes the device."""
    command = Command()
    while True:
        try:
            library.vdi_device_get_command(device, -1, command)
        except VdiError as error:
            if error.status == VD_E_CLOSE:
                break
            raise
        code, done = medium.carry_out(command)
        library.vdi_device_complete_command(device, command.id, code, done, 0)
    medium.closed_by_server()
    say(f"{medium.bytes} bytes {'written' if medium.backup else 'read'}")


def session(library, vdi_set, name, path):
    """One backup or restore with a set that was created."""
    agreed, device = Config(), ctypes.c_void_p()
    library.vdi_set_get_configuration(vdi_set, 600_000, agreed)
    features = agreed.features
    try:
        medium = Medium(path, bool(features & VDF_WRITE_MEDIA), bool(features & VDF_COMPLETE_ENABLED))
    except OSError as error:
        # The messages of the statement say why, too.
        code = DISK_FULL if error.errno == errno.ENOSPC else IO_DEVICE
        library.vdi_set_signal_abort_because(vdi_set, code, str(error).encode())
        raise
    try:
        library.vdi_set_open_device(vdi_set, name, device)
        try:
            serve(library, device, medium)
        finally:
            # Where it was not served to its end this aborts the set, and the statement fails.
            library.vdi_device_free(device)
    finally:
        medium.close()
    library.vdi_set_close(vdi_set)


def main(library, name, path):
    """The agent."""
    # Ctrl-C ends the process also where it waits in the library; the server hears of its end.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    library, vdi_set = load(library), ctypes.c_void_p()
    config = Config(device_count=1, features=VDF_REQUEST_COMPLETE)
    library.vdi_set_create(None, name.encode(), config, vdi_set)
    say(f"ready for BACKUP DATABASE ... TO, or RESTORE DATABASE ... FROM, VIRTUAL_DEVICE='{name}'")
    try:
        session(library, vdi_set, name.encode(), path)
    finally:
        library.vdi_set_free(vdi_set)


if __name__ == "__main__":
    if len(sys.argv) != 4 or not sys.argv[3]:
        sys.exit("usage: agent.py LIBRARY SET FILE")
    try:
        main(*sys.argv[1:])
    except (VdiError, OSError) as error:
        sys.exit(f"agent.py: {error}")
