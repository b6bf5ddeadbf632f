#!/usr/bin/env python3
"""A complete backup agent in Python: agent.py LIBRARY SET FILE, then send the statement that names SET.

LIBRARY is the path of libvdi_c.so. A backup goes to FILE.partial and takes FILE's place before the server reports success,
and never before it is proven to be complete. A restore reads FILE. An agent that is killed leaves FILE.partial, which the next
one overwrites. Only the standard library is used: the functions and numbers are those of vdi_c.h. With
VDI_LIBRARY=/opt/mssql/lib/libsqlvdi.so in the environment the server is SQL Server.
"""

import ctypes
import errno
import os
import signal
import sys

VDF_REQUEST_COMPLETE, VDF_WRITE_MEDIA, VDF_COMPLETE_ENABLED = 0x2000, 0x10000, 0x40000
VDC_READ, VDC_WRITE, VDC_CLEAR_ERROR, VDC_FLUSH, VDC_COMPLETE = 1, 2, 3, 12, 19
SUCCESS, HANDLE_EOF, NOT_SUPPORTED, DISK_FULL, IO_DEVICE = 0, 38, 50, 112, 1117
VD_E_CLOSE = 0x8077000E - (1 << 32)


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


class Medium:
    """The file: commands are carried out on it. After an error nothing is reported as a success any more."""

    def __init__(self, path, backup, announced):
        self.path, self.partial, self.backup = path, path + ".partial", backup
        # announced: VDC_COMPLETE will come, without it nothing is complete. flushed: a VDC_FLUSH came, and no VDC_WRITE after.
        self.announced, self.flushed = announced, False
        self.committed, self.failed, self.bytes = False, False, 0
        self.file = open(self.partial if backup else path, "wb" if backup else "rb", buffering=0)

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
                return self.transfer(command, self.file.readinto, HANDLE_EOF)
            if command.code == VDC_FLUSH:
                self.flush()
                return SUCCESS, 0
            if command.code == VDC_COMPLETE:
                self.commit()
                return SUCCESS, 0
            return NOT_SUPPORTED, 0
        except OSError as error:
            print(f"agent.py: {error}", file=sys.stderr)
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

    def flush(self):
        """Only what is on the disk is written."""
        if self.backup:
            os.fsync(self.file.fileno())
        self.flushed = True

    def commit(self):
        """Gives a backup that is complete its name, durably."""
        self.flush()
        if not self.backup or self.committed:
            return
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
        self.file.close()
        if self.backup and not self.committed:
            os.unlink(self.partial)


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
    print(f"{medium.bytes} bytes {'written' if medium.backup else 'read'}", flush=True)


def session(library, vdi_set, name, path):
    """One backup or restore with a set that was created."""
    agreed, device = Config(), ctypes.c_void_p()
    library.vdi_set_get_configuration(vdi_set, 600_000, agreed)
    features = agreed.features
    medium = Medium(path, bool(features & VDF_WRITE_MEDIA), bool(features & VDF_COMPLETE_ENABLED))
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
    print(f"ready for BACKUP DATABASE ... TO, or RESTORE DATABASE ... FROM, VIRTUAL_DEVICE='{name}'", flush=True)
    try:
        session(library, vdi_set, name.encode(), path)
    finally:
        library.vdi_set_free(vdi_set)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: agent.py LIBRARY SET FILE")
    try:
        main(*sys.argv[1:])
    except (VdiError, OSError) as error:
        sys.exit(f"agent.py: {error}")
