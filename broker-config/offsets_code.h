/* Which offsets of a partition are finished, as the metadata string of a Kafka commit. The commit's
 * offset is the low mark; the string holds what is finished above it, and where the completion
 * topic ended at that moment. Kafka keeps the string as text of at most 4096 characters
 * (`offset.metadata.max.bytes`). Not thread safe, no I/O.
 *
 *     text    = "1" base64                         version; RFC 4648 section 4, no padding
 *     base64 of = feed_end size [form gaps] check
 *     feed_end  varint: the end offset of the completion topic, 0..2^63-1
 *     size      varint: flags that follow, 0..2^20; flag i says that offset low + i is finished.
 *               The last one is set. With 0, form and gaps are absent: nothing is finished
 *     form      a byte. Bits 0-4: k, 0..20. Bit 5: the symbol is the unfinished offset, else the
 *               finished one. Bits 6-7: 0
 *     gaps      for each flag of the symbol, in order: the number of other flags between the one
 *               before (or the start) and this one, as a Rice code; for the unfinished symbol also
 *               for the first offset above the last flag, which is not finished. Zero bits up to
 *               the end of the byte
 *     check     the first 4 bytes of the SHA-256 of low (8 bytes, little-endian) and all bytes from
 *               feed_end to gaps
 *
 * A varint is LEB128, as short as can be. The Rice code of a gap g is g >> k zero bits, a one bit
 * and the k low bits of g; the first bit of a stream is bit 0 of its first byte, and numbers come
 * with their bit 0 first. So k = 0 with the finished symbol is the plain bitmap, and the reader
 * stops when the flags are full. The writer takes the shortest form.
 *
 * An example: low 1000, feed end 300, finished 1001, 1002 and 1005 make the six flags 0 1 1 0 0 1,
 * hence AC 02 (300), 06 (six flags), 00 (bitmap), 26 (the flags), F3 DE C0 39 (the check) and the
 * text "1rAIGACbz3sA5".
 *
 * The check covers low because metadata can stay while the offset changes: MirrorMaker 2 copies it
 * beside the translated offset. Wrongly taken for finished, a job would be lost.
 *
 * Sources: R. F. Rice (JPL 79-22, 1979); S. W. Golomb, "Run-length encodings" (1966); the offset
 * map of Confluent's Parallel Consumer. */
#pragma once
#include "base/str.h"
#include "broker-config/offsets.h"
#include "broker-config/offsets_done.h"

/* The longest text, in characters. */
#define OFFSETS_CODE_CHARS 4096

/* It always fits while at most so many are taken and unfinished, and the highest finished offset
 * lies at most so far above the low mark. By how much: the flags are w <= 65 537; the unfinished
 * among them and the one above are n <= 4 097, with w + 1 - n others in between. At k = 3 that is
 * at most (1 + 3) n + (w + 1 - n) / 8 bits, which grows with both n and w: 16 388 + 7 680 bits =
 * 3 009 bytes. With 9 of feed_end, 3 of size, 1 of form and 4 of check: 3 026 bytes, 4 035
 * characters, and one of version. An owner that took over stays inside when the one before did: of
 * what it has not taken yet it knows no more as unfinished than that one had. */
#define OFFSETS_MAX_UNFINISHED 4096
#define OFFSETS_MAX_SPREAD 65536

/* Writes the text for a commit at o->low to dst of `cap` bytes (no NUL): finished is what o says
 * and what d has. d->low <= o->low, feed_end >= 0. Returns the characters written, at most
 * OFFSETS_CODE_CHARS, or 0 when it needs more, or more than OFFSETS_DONE_SPAN flags: keep the last
 * commit then. */
size_t offsets_encode(const struct offsets *o, const struct offsets_done *d, int64_t feed_end,
                      char *dst, size_t cap);
/* At least the characters that offsets_encode needs, from two counts and without looking at the
 * gaps: less than a bit a gap too high. SIZE_MAX for more than OFFSETS_DONE_SPAN flags. */
size_t offsets_code_chars(const struct offsets *o, const struct offsets_done *d);

/* Reads the metadata of a commit at `low` into d (initialised here; the caller releases it) and
 * *feed_end. False when it is none of ours: empty, another version, made for another low, broken
 * (low < 0 is Kafka's "nothing committed"). d is then empty: nothing is finished above the mark;
 * *feed_end is -1. */
bool offsets_decode(struct str text, int64_t low, struct offsets_done *d, int64_t *feed_end);
