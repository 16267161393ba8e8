#include "base/base64.h"
#include "base/buf.h"
#include "base/sha256.h"
#include "broker-config/offsets_code.h"
#include "tests/lib/test.h"
#include <stdio.h>
#include <stdlib.h>

enum { LOW = 1000 };

static const struct offsets_done nothing;

/* Takes the offsets from low on and finishes those that are flagged; flag 0 is not set. */
static struct offsets take_all(int64_t low, const unsigned char *flags, size_t n)
{
    struct offsets o;
    size_t i;

    offsets_init(&o, low);
    for (i = 0; i < n; i++)
        CHECK(offsets_take(&o, low + (int64_t)i));
    for (i = 0; i < n; i++)
        CHECK(!flags[i] || offsets_finish(&o, low + (int64_t)i));
    return o;
}

static size_t varint_bytes(uint64_t v)
{
    size_t n = 1;

    for (; v >= 0x80; v >>= 7)
        n++;
    return n;
}

/* The fewest bits that the format allows: every symbol and every k is tried. */
static size_t least_bits(const unsigned char *flags, size_t size)
{
    size_t best = SIZE_MAX, i;
    int symbol, k;

    for (symbol = 0; symbol < 2; symbol++)
        for (k = 0; k <= 20; k++) {
            size_t bits = 0, gap = 0;

            for (i = 0; i < size + (symbol == 0); i++) {
                if ((i < size ? flags[i] : 0) == symbol) {
                    bits += (gap >> k) + 1 + (size_t)k;
                    gap = 0;
                } else {
                    gap++;
                }
            }
            best = bits < best ? bits : best;
        }
    return best;
}

static size_t least_chars(const unsigned char *flags, size_t n, int64_t feed_end)
{
    size_t bytes = varint_bytes((uint64_t)feed_end) + 4;

    while (n > 0 && !flags[n - 1])
        n--;
    bytes += varint_bytes(n);
    if (n > 0)
        bytes += 1 + (least_bits(flags, n) + 7) / 8;
    return 1 + (bytes * 8 + 5) / 6;
}

static void check_back(struct str text, int64_t low, const unsigned char *flags, size_t n,
                       int64_t feed_end)
{
    struct offsets_done d;
    int64_t feed;
    size_t i;

    CHECK(offsets_decode(text, low, &d, &feed));
    CHECK_INT(feed, feed_end);
    CHECK_INT(d.low, low);
    for (i = 0; i < n + 200; i++)
        CHECK_INT(offsets_done_has(&d, low + (int64_t)i), i < n && flags[i]);
    CHECK(offsets_done_has(&d, low - 1));
    offsets_done_release(&d);
}

/* Writes, compares with the shortest there is, and reads back. Returns the characters. */
static size_t check_round(int64_t low, const unsigned char *flags, size_t n, int64_t feed_end)
{
    struct offsets o = take_all(low, flags, n);
    size_t want = least_chars(flags, n, feed_end), got, bound = offsets_code_chars(&o, &nothing);
    char text[OFFSETS_CODE_CHARS];

    got = offsets_encode(&o, &nothing, feed_end, text, sizeof text);
    CHECK_INT(got, want <= sizeof text ? want : 0);
    CHECK(bound >= want);
    if (got > 0) {
        check_back(str_of(text, got), low, flags, n, feed_end);
        CHECK_INT(offsets_encode(&o, &nothing, feed_end, text, got - 1), 0);
        CHECK_INT(offsets_encode(&o, &nothing, feed_end, text, got), got);
    }
    offsets_release(&o);
    return want;
}

static void check_text(const unsigned char *flags, size_t n, int64_t feed_end, const char *wantz)
{
    struct offsets o = take_all(LOW, flags, n);
    char text[OFFSETS_CODE_CHARS];
    size_t got = offsets_encode(&o, &nothing, feed_end, text, sizeof text);

    CHECK_STR(str_of(text, got), wantz);
    check_back(str_z(wantz), LOW, flags, n, feed_end);
    offsets_release(&o);
}

/* Texts that stand in committed offsets somewhere: they must stay readable. */
TEST(the_format_stays)
{
    unsigned char flags[300] = {0};
    size_t i;

    check_text(flags, 0, 0, "1AAD41sPF");
    check_text(flags, 6, INT64_MAX, "1//////////9/AH/9gqw");
    flags[1] = flags[2] = flags[5] = 1;
    check_text(flags, 8, 300, "1rAIGACbz3sA5");
    memset(flags, 0, sizeof flags);
    for (i = 7; i < sizeof flags; i += 31 + i % 5)
        flags[i] = 1;
    check_text(flags, sizeof flags, 5000000000, "1gOSX0BKMAgSPoPsMgu4zAPW8DyU");
    for (i = 0; i < sizeof flags; i++)
        flags[i] = !flags[i] && i > 0;
    check_text(flags, sizeof flags, 5000000000, "1gOSX0BKsAiShEXSfQdB9BgGXuvKu");
}

static void fill_random(unsigned char *flags, size_t n)
{
    int share = (int)(random() % 1001), other = (int)(random() % 1001), switches;
    size_t i;

    switches = random() % 2 ? (int)(random() % 100) : 0;
    for (i = 0; i < n; i++) {
        if (random() % 1000 < switches) {
            int was = share;

            share = other;
            other = was;
        }
        flags[i] = i > 0 && random() % 1000 < share;
    }
}

/* Symbols at two distances: where rounding matters most to the choice of k. */
static void fill_two_gaps(unsigned char *flags, size_t n)
{
    size_t gaps[2] = {(size_t)random() % 20, (size_t)random() % 80}, i, left = 1;
    int symbol = (int)(random() % 2), share = (int)(random() % 100);

    for (i = 0; i < n; i++, left--) {
        flags[i] = i > 0 && (left == 0 ? symbol : !symbol);
        if (left == 0)
            left = gaps[random() % 100 < share] + 1;
    }
}

TEST(random_sets_take_the_shortest_form_and_come_back)
{
    enum { MOST = 3000 };
    static unsigned char flags[MOST];
    unsigned seed;

    for (seed = 1; seed <= 1500; seed++) {
        size_t n;

        srandom(seed);
        n = (size_t)random() % (seed % 2 ? 200 : MOST);
        if (seed % 3)
            fill_random(flags, n);
        else
            fill_two_gaps(flags, n);
        check_round(random(), flags, n, random() % 2 ? random() : INT64_MAX - random());
    }
}

TEST(the_bound_is_less_than_a_bit_a_gap_too_high)
{
    enum { SPAN = 20000 };
    static unsigned char flags[SPAN];
    size_t step, i;

    for (step = 1; step < SPAN / 2; step += 1 + step / 3) {
        size_t n = SPAN - 1, bits = step < 2 ? 0 : n / step + 1, chars;
        struct offsets o;

        for (i = 1; i < SPAN; i++)
            flags[i] = i % step != 0 || i == SPAN - 1;
        o = take_all(LOW, flags, SPAN);
        chars = least_chars(flags, SPAN, INT64_MAX);
        CHECK(offsets_code_chars(&o, &nothing) >= chars);
        CHECK(offsets_code_chars(&o, &nothing) <= chars + bits / 6 + 2);
        offsets_release(&o);
    }
}

/* Sizes of facts measured beside other encodings: flags, unfinished among them, base64 characters
 * of the entropy and of Rice's code. With up to 19 of frame (5 bytes of feed_end, 3 of size, form
 * and check, and the version). */
TEST(random_sets_stay_near_their_entropy)
{
    static const struct {
        size_t size, n_unfinished, entropy, rice;
    } rows[] = {{4096, 2048, 683, 684}, {4096, 410, 335, 344}, {65536, 4114, 3696, 3751}};
    static unsigned char flags[65536];
    size_t i, n, at;

    srandom(3);
    for (i = 0; i < sizeof rows / sizeof *rows; i++) {
        memset(flags, 1, rows[i].size);
        flags[0] = 0;
        for (n = 1; n < rows[i].n_unfinished; n += flags[at], flags[at] = 0)
            at = 1 + (size_t)random() % (rows[i].size - 2);
        n = check_round(LOW, flags, rows[i].size, 5000000000);
        CHECK(n <= rows[i].rice + rows[i].rice / 100 + 19);
        CHECK(n >= rows[i].entropy - rows[i].entropy / 100);
    }
}

TEST(one_stuck_job_costs_nothing)
{
    static unsigned char flags[65537];

    memset(flags + 1, 1, sizeof flags - 1);
    CHECK(check_round(LOW, flags, sizeof flags, 5000000000) <= 6 + 19);
    flags[30000] = 0;
    CHECK(check_round(LOW, flags, sizeof flags, 5000000000) <= 12 + 19);
}

/* Flags for n_unfinished (with low) in so wide a spread; `how` places them. */
static void place(unsigned char *flags, size_t spread, size_t n_unfinished, int how)
{
    size_t n, at = 0, i;

    memset(flags, 1, spread + 1);
    flags[0] = 0;
    for (n = 1; n < n_unfinished; n++) {
        switch (how) {
        case 0: /* even */
            at = n * spread / n_unfinished;
            break;
        case 1: /* all at the front */
            at = n;
            break;
        case 2: /* all at the end */
            at = spread - n;
            break;
        case 3: /* gaps that no rounding shortens: 16 as often as can be, else 0 */
            at += at + 17 + n_unfinished - n < spread ? 17 : 1;
            break;
        default:
            do
                at = 1 + (size_t)random() % (spread - 1);
            while (!flags[at]);
        }
        flags[at] = 0;
    }
    for (n = 0, i = 0; i <= spread; i++)
        n += !flags[i];
    CHECK_INT(n, n_unfinished);
}

/* The promise of the header, at and within its limits; its arithmetic is exact: one set needs all
 * of the 4036 characters. */
TEST(what_intake_allows_always_fits)
{
    static const size_t unfinished[] = {1, 2, 100, 1000, 2048, 3000, 4000, OFFSETS_MAX_UNFINISHED};
    static const size_t spreads[] = {5000, 16384, 24000, 32768, 50000, OFFSETS_MAX_SPREAD};
    static unsigned char flags[OFFSETS_MAX_SPREAD + 1];
    char text[OFFSETS_CODE_CHARS];
    size_t u, s, n, longest = 0;
    int how;

    srandom(4);
    for (u = 0; u < sizeof unfinished / sizeof *unfinished; u++)
        for (s = 0; s < sizeof spreads / sizeof *spreads; s++)
            for (how = 0; how < 7; how++) {
                struct offsets o;

                place(flags, spreads[s], unfinished[u], how);
                o = take_all(LOW, flags, spreads[s] + 1);
                n = offsets_encode(&o, &nothing, INT64_MAX, text, sizeof text);
                CHECK(n > 0);
                CHECK(offsets_code_chars(&o, &nothing) <= 4036);
                check_back(str_of(text, n), LOW, flags, spreads[s] + 1, INT64_MAX);
                longest = n > longest ? n : longest;
                offsets_release(&o);
            }
    CHECK_INT(longest, 4036);
}

TEST(what_is_taken_above_the_highest_finished_costs_nothing)
{
    static unsigned char flags[100000];
    size_t n;

    flags[1] = flags[2] = flags[5] = 1;
    n = check_round(LOW, flags, 8, 300);
    CHECK_INT(check_round(LOW, flags, sizeof flags, 300), n);
}

TEST(too_many_do_not_fit)
{
    static unsigned char flags[OFFSETS_MAX_SPREAD];
    char text[OFFSETS_CODE_CHARS];
    struct offsets o;
    size_t i;

    for (i = 1; i < sizeof flags; i += 2)
        flags[i] = 1;
    CHECK(check_round(LOW, flags, sizeof flags, 0) > OFFSETS_CODE_CHARS);
    offsets_init(&o, LOW);
    CHECK(offsets_take(&o, LOW));
    CHECK(offsets_take(&o, LOW + OFFSETS_DONE_SPAN));
    CHECK(offsets_encode(&o, &nothing, 0, text, sizeof text) > 0);
    CHECK(offsets_code_chars(&o, &nothing) < 40);
    CHECK(offsets_finish(&o, LOW + OFFSETS_DONE_SPAN));
    CHECK_INT(offsets_encode(&o, &nothing, 0, text, sizeof text), 0);
    CHECK(offsets_code_chars(&o, &nothing) == SIZE_MAX);
    offsets_release(&o);
}

/* Until the new owner has taken again what the set holds, its commits say what the set says. */
TEST(a_commit_before_all_was_taken_again_forgets_nothing)
{
    unsigned char flags[10] = {0, 1, 0, 0, 1, 1, 0, 0, 0, 1};
    struct offsets o = take_all(LOW, flags, sizeof flags);
    char text[OFFSETS_CODE_CHARS], again[OFFSETS_CODE_CHARS];
    size_t n = offsets_encode(&o, &nothing, 7, text, sizeof text);
    struct offsets_done d;
    int64_t feed;

    offsets_release(&o);
    CHECK(offsets_decode(str_of(text, n), LOW, &d, &feed));
    offsets_init(&o, LOW);
    CHECK_INT(offsets_encode(&o, &d, 7, again, sizeof again), n);
    CHECK(memcmp(text, again, n) == 0);
    CHECK(offsets_take(&o, LOW));
    CHECK(offsets_finish(&o, LOW));
    /* The mark stands at an offset that is finished already. */
    CHECK_INT(o.low, LOW + 1);
    n = offsets_encode(&o, &d, 7, again, sizeof again);
    check_back(str_of(again, n), LOW + 1, flags + 1, sizeof flags - 1, 7);
    offsets_release(&o);
    offsets_done_release(&d);
}

TEST(the_whole_span_fits_when_few_differ)
{
    const int64_t end = LOW + OFFSETS_DONE_SPAN;
    char text[OFFSETS_CODE_CHARS];
    struct offsets_done d, back;
    struct offsets o;
    int64_t feed;
    size_t n;

    offsets_init(&o, LOW);
    offsets_done_init(&d, LOW);
    CHECK(offsets_done_add(&d, LOW, end));
    n = offsets_encode(&o, &d, 7, text, sizeof text);
    CHECK(n > 0 && n <= offsets_code_chars(&o, &d) && n < 30);
    CHECK(offsets_decode(str_of(text, n), LOW, &back, &feed));
    CHECK_INT(back.end, end);
    CHECK(memcmp(back.bits, d.bits, OFFSETS_DONE_SPAN / 8) == 0);
    offsets_done_release(&d);
    offsets_done_release(&back);
}

static bool is_refused(struct str text, int64_t low)
{
    struct offsets_done d;
    int64_t feed = 5;

    if (offsets_decode(text, low, &d, &feed)) {
        offsets_done_release(&d);
        return false;
    }
    CHECK_INT(feed, -1);
    CHECK_INT(d.end, d.low);
    CHECK(d.bits == NULL);
    CHECK(!offsets_done_has(&d, low < 0 ? 0 : low));
    return true;
}

TEST(foreign_metadata_is_nothing)
{
    static char overlong[OFFSETS_CODE_CHARS + 4];
    static const char *const foreign[] = {"",    "1",     "0",        "2rAIGACbz3sA5", "NONE",
                                          "1 ",  "1AAAA", "1AAAAAA",  "1AAAAAAAA",     "{}",
                                          "1==", "11",    "worker-1", "rAIGACbz3sA5",  "\xc3\xa9"};
    size_t i;

    for (i = 0; i < sizeof foreign / sizeof *foreign; i++)
        CHECK(is_refused(str_z(foreign[i]), LOW));
    CHECK(is_refused(STR_NONE, LOW));
    memset(overlong, 'A', sizeof overlong);
    overlong[0] = '1';
    for (i = OFFSETS_CODE_CHARS - 4; i <= sizeof overlong; i++)
        CHECK(is_refused(str_of(overlong, i), LOW));
}

TEST(a_changed_cut_or_moved_text_is_refused)
{
    static const char valid[] = "1rAIGACbz3sA5";
    const size_t n = sizeof valid - 1;
    char text[sizeof valid + 1];
    size_t i;
    int c;

    CHECK(!is_refused(str_z(valid), LOW));
    CHECK(is_refused(str_z(valid), LOW + 1));
    CHECK(is_refused(str_z(valid), LOW - 1));
    CHECK(is_refused(str_z(valid), -1001));
    CHECK(is_refused(str_z(valid), INT64_MAX));
    for (i = 0; i < n; i++) {
        CHECK(is_refused(str_of(valid, i), LOW));
        for (c = 0; c < 256; c++) {
            memcpy(text, valid, n);
            text[i] = (char)c;
            CHECK_INT(is_refused(str_of(text, n), LOW), text[i] != valid[i]);
        }
    }
    for (c = 0; c < 256; c++) {
        memcpy(text, valid, n);
        text[n] = (char)c;
        CHECK(is_refused(str_of(text, n + 1), LOW));
    }
}

/* A body with the right check, as an attacker would make it. */
static bool is_body_refused(int64_t low, const char *body, size_t n)
{
    char text[OFFSETS_CODE_CHARS];
    uint8_t bytes[8 + 3071], digest[SHA256_LEN];
    int i;

    for (i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)low >> (8 * i));
    memcpy(bytes + 8, body, n);
    sha256(str_of(bytes, 8 + n), digest);
    memcpy(bytes + 8 + n, digest, 4);
    text[0] = '1';
    n = 1 + base64_encode(bytes + 8, n + 4, text + 1);
    return is_refused(str_of(text, n), low);
}

#define REFUSED(body) CHECK(is_body_refused(LOW, "" body, sizeof(body) - 1))
#define ACCEPTED(body) CHECK(!is_body_refused(LOW, "" body, sizeof(body) - 1))

TEST(a_false_body_is_refused_with_the_right_check)
{
    ACCEPTED("\0\0");    /* nothing finished */
    REFUSED("");         /* no feed_end */
    REFUSED("\0");       /* no size */
    REFUSED("\x80\0\0"); /* varints, not shortest */
    REFUSED("\0\x80\0");
    REFUSED("\x80"); /* cut */
    REFUSED("\0\x81");
    ACCEPTED("\xff\xff\xff\xff\xff\xff\xff\xff\x7f\0");    /* 2^63 - 1 */
    REFUSED("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\0"); /* 2^63 */
    REFUSED("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\0");
    REFUSED("\0\0\0");   /* more after nothing */
    REFUSED("\0\x06");   /* no form */
    REFUSED("\0\x06\0"); /* no gaps */
    ACCEPTED("\0\x06\0\x26");
    REFUSED("\0\x06\0\x26\0"); /* too many bytes */
    REFUSED("\0\x06\0\x66");   /* bits behind the end */
    REFUSED("\0\x06\0\x46");   /* a seventh flag */
    REFUSED("\0\x06\0\x06");   /* the last is not set */
    REFUSED("\0\x06\x40\x26"); /* unknown bits of form */
    REFUSED("\0\x06\x80\x26");
    REFUSED("\0\x06\x15\x26"); /* k is 21 */
    REFUSED("\0\x06\x1f\x26");
    ACCEPTED("\0\x06\x20\x59");     /* k = 0, the unfinished */
    REFUSED("\0\x06\x20\x79");      /* the last is not set */
    REFUSED("\0\x06\x20\x19");      /* none above the flags */
    ACCEPTED("\0\x01\x14\x01\0\0"); /* k = 20, gap 0 */
    REFUSED("\0\x01\x14\x01\0");    /* its low bits are cut */
    REFUSED("\0\x01\x14\x03\0\0");  /* its gap is too wide */
    REFUSED("\0\x01\x14\x02\0\0\0");
    ACCEPTED("\0\x80\x80\x40\x34\x02\0\0"); /* 2^20 flags */
    REFUSED("\0\x81\x80\x40\x34\x06\0\0");  /* one more */
    REFUSED("\0\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x34\x02\0\0");
}

TEST(zeros_without_end_are_refused)
{
    static char body[3067] = "\0\x80\x80\x40";
    size_t n;
    int k;

    for (k = 0; k <= 20; k++)
        for (n = 5; n <= sizeof body; n += 1 + n / 2) {
            body[4] = (char)k;
            CHECK(is_body_refused(LOW, body, n));
            body[4] = (char)(32 | k);
            CHECK(is_body_refused(LOW, body, n));
        }
}

TEST(the_highest_low_still_has_its_span)
{
    static const int64_t highest = INT64_MAX - OFFSETS_DONE_SPAN - 1;

    CHECK(!is_body_refused(highest, "\0\x80\x80\x40\x34\x02\0\0", 8));
    CHECK(is_body_refused(highest + 1, "\0\x80\x80\x40\x34\x02\0\0", 8));
}
