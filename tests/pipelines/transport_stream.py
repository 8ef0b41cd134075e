# SPDX-License-Identifier: LGPL-2.1-or-later
"""Looks into MPEG transport streams as ETSI TR 101 290 does: synchronisation, continuity, PAT
and PMT, clock. Python's standard library only."""

PACKET = 188
CLOCK = 27_000_000
NULL_PID = 0x1FFF
# Seconds: TR 101 290, priorities 1.3.a, 1.5.a and 2.3.a
TABLE_INTERVAL = 0.5
PCR_INTERVAL = 0.1


class TransportStream:
    """What is wrong with a stream, in words: problems. pids: those with payload; pcrs: all clock
    references, in ticks of 27 MHz; programs: PIDs of PMTs; streams: types by PID."""

    def __init__(self, data):
        self.problems = []
        self.pids = {}
        self.pcrs = []
        self.programs = set()
        self.streams = {}
        self.pcr_pid = None
        self._counters = {}
        self._tables = {}
        self._clock = None
        if len(data) < PACKET or len(data) % PACKET:
            self._problem(0, f"{len(data)} bytes are no number of packets")
        for start in range(0, len(data) - PACKET + 1, PACKET):
            self._packet(start // PACKET, data[start : start + PACKET])
        if not self.pcrs:
            self._problem(0, "there is no clock")

    def _problem(self, packet, text):
        self.problems.append(f"packet {packet}: {text}")

    @property
    def seconds(self):
        return (self.pcrs[-1] - self.pcrs[0]) / CLOCK if self.pcrs else 0

    def _packet(self, n, packet):
        if packet[0] != 0x47:
            self._problem(n, "no sync byte")
            return
        pid = (packet[1] & 0x1F) << 8 | packet[2]
        if packet[1] & 0x80:
            self._problem(n, f"PID {pid}: transport error")
        if pid == NULL_PID:
            return
        has_field, has_payload = packet[3] & 0x20, packet[3] & 0x10
        payload = 4 + (1 + packet[4] if has_field else 0)
        discontinuity = bool(has_field and packet[4] > 0 and packet[5] & 0x80)
        self._continuity(n, pid, packet[3] & 0xF, has_payload, discontinuity)
        if has_field and packet[4] >= 7 and packet[5] & 0x10:
            self._pcr(n, pid, packet[6:12], discontinuity)
        if has_payload:
            self.pids[pid] = self.pids.get(pid, 0) + 1
            if packet[1] & 0x40 and (pid == 0 or pid in self.programs):
                self._table(n, pid, packet[payload:])

    def _continuity(self, n, pid, counter, has_payload, discontinuity):
        before = self._counters.get(pid)
        self._counters[pid] = counter
        if before is None or discontinuity:
            return
        wanted = (before + 1) % 16 if has_payload else before
        if counter != wanted:
            self._problem(n, f"PID {pid}: continuity counter {counter}, not {wanted}")

    def _pcr(self, n, pid, field, discontinuity):
        base = int.from_bytes(field[:4], "big") << 1 | field[4] >> 7
        clock = base * 300 + ((field[4] & 1) << 8 | field[5])
        if self.pcr_pid not in (None, pid):
            self._problem(n, f"clock in PID {pid}, not {self.pcr_pid}")
        if self._clock is not None and not discontinuity:
            step = (clock - self._clock) / CLOCK
            if not 0 < step <= PCR_INTERVAL:
                self._problem(n, f"clock after {step:.6f} s")
        self._clock = clock
        self.pcrs.append(clock)

    def _table(self, n, pid, payload):
        section = payload[1 + payload[0] :]
        length = (section[1] & 0xF) << 8 | section[2]
        section = section[: 3 + length]
        if crc32(section) != 0:
            self._problem(n, f"PID {pid}: checksum of the table")
            return
        if self._clock is not None:
            since = (self._clock - self._tables.get(pid, self._clock)) / CLOCK
            if since > TABLE_INTERVAL:
                self._problem(n, f"PID {pid}: table after {since:.3f} s")
            self._tables[pid] = self._clock
        if pid == 0:
            entries = [section[i : i + 4] for i in range(8, len(section) - 4, 4)]
            self.programs |= {
                (entry[2] & 0x1F) << 8 | entry[3] for entry in entries if entry[:2] != b"\0\0"
            }
        elif section[0] == 2:
            self._program(section)

    def _program(self, section):
        self.pcr_pid = (section[8] & 0x1F) << 8 | section[9]
        at = 12 + ((section[10] & 0xF) << 8 | section[11])
        while at < len(section) - 4:
            pid = (section[at + 1] & 0x1F) << 8 | section[at + 2]
            self.streams[pid] = section[at]
            at += 5 + ((section[at + 3] & 0xF) << 8 | section[at + 4])


def crc32(data):
    """Of MPEG tables; 0 over a table with its checksum."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = crc << 1 ^ (0x104C11DB7 if crc & 0x80000000 else 0)
    return crc


def first_clock(data):
    """Where the first packet with a clock reference begins."""
    for start in range(0, len(data) - PACKET + 1, PACKET):
        if data[start + 3] & 0x20 and data[start + 4] >= 7 and data[start + 5] & 0x10:
            return start
    return 0


def read(path, joined=False):
    """joined: by a receiver in the middle, which GStreamer sends the tables to first; the counters
    go on from elsewhere."""
    with open(path, "rb") as file:
        data = file.read()
    return TransportStream(data[first_clock(data) :] if joined else data)
