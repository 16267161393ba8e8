#include "producer/cli/progress.h"
#include "base/clock.h"
#include "base/file.h"
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    DRAW_MS = 100,
    PLAIN_MS = 10000,
    RATE_MS = 15000,   /* the time the rate is smoothed over */
    SAMPLE_MS = 200,
    BAR_MAX = 30,
    BAR_MIN = 5,       /* narrower ones are left out */
    LINE_MAX_BYTES = 4096,
    WIDTH_DEFAULT = 80,
};

/* ---- formatting ---- */

void progress_put_count(struct buf *b, int64_t n)
{
    static const char units[] = "kMGTP";
    double v = (double)n;
    size_t i;

    if (n < 1000) {
        buf_addi(b, n < 0 ? 0 : n);
        return;
    }
    for (v /= 1000, i = 0; v >= 999.5 && units[i + 1]; i++)
        v /= 1000;
    buf_addf(b, v < 99.95 ? "%.1f%c" : "%.0f%c", v, units[i]);
}

void progress_put_time(struct buf *b, int64_t ms)
{
    long long s = (long long)(ms < 0 ? 0 : (ms + 500) / 1000);

    if (s < 3600)
        buf_addf(b, "%lld:%02lld", s / 60, s % 60);
    else if (s < 86400)
        buf_addf(b, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else
        buf_addf(b, "%lldd %02lld:%02lld", s / 86400, s / 3600 % 24, s / 60 % 60);
}

static int64_t done_here(const struct progress *p)
{
    return p->done > p->n_before ? p->done - p->n_before : 0;
}

/* Over all of the run while it is young or over, later of the last seconds: so the ETA follows. */
static double rate_of(const struct progress *p, int64_t now_ms, bool is_end)
{
    int64_t ms = now_ms - p->started_ms;

    if (ms <= 0)
        return 0;
    return is_end || ms < RATE_MS ? (double)done_here(p) * 1000 / (double)ms : p->rate;
}

static void put_counts(const struct progress *p, struct buf *b)
{
    buf_addi(b, p->done);
    if (p->total >= 0)
        buf_addf(b, "/%lld", (long long)p->total);
    else
        buf_addz(b, " done");
}

static void put_rest(const struct progress *p, int64_t now_ms, bool is_end, struct buf *b)
{
    double rate = rate_of(p, now_ms, is_end);

    if (!is_end || done_here(p) > 0) /* all was done before: there is none */
        buf_addf(b, rate < 99.95 ? "  %.1f %s/s" : "  %.0f %s/s", rate, p->unitz);
    if (p->tokens > 0) {
        buf_addz(b, "  ");
        progress_put_count(b, p->tokens);
        buf_addz(b, " tokens");
    }
    if (p->failed > 0)
        buf_addf(b, "  %lld failed", (long long)p->failed);
    if (is_end) {
        buf_addz(b, "  in ");
        progress_put_time(b, now_ms - p->started_ms);
    } else if (p->total > p->done && rate > 0) {
        buf_addz(b, "  ETA ");
        progress_put_time(b, (int64_t)((double)(p->total - p->done) / rate * 1000));
    }
}

/* "[####......] " where there is room beside `used` columns. */
static void put_bar(const struct progress *p, int width, size_t used, struct buf *b)
{
    int room = width - (int)used - 3, full, i;

    if (p->total < 0 || room < BAR_MIN)
        return;
    if (room > BAR_MAX)
        room = BAR_MAX;
    full = p->total == 0 || p->done >= p->total
               ? room
               : (int)((double)p->done / (double)p->total * room);
    buf_addc(b, '[');
    for (i = 0; i < room; i++)
        buf_addc(b, i < full ? '#' : '.');
    buf_addz(b, "] ");
}

void progress_format(const struct progress *p, int64_t now_ms, int width, bool is_end,
                     struct buf *b)
{
    struct buf text;

    buf_init(&text, LINE_MAX_BYTES);
    put_counts(p, &text);
    if (width == 0 && p->total > 0)
        buf_addf(&text, " (%d%%)", (int)(100.0 * (double)p->done / (double)p->total));
    put_rest(p, now_ms, is_end, &text);
    if (width > 0) {
        put_bar(p, width, text.n, b);
        if (text.n > (size_t)width)
            text.n = (size_t)width;
    }
    buf_adds(b, buf_str(&text));
    buf_release(&text);
}

/* ---- rate ---- */

void progress_sample(struct progress *p, int64_t now_ms)
{
    int64_t ms = now_ms - p->sampled_ms, here = done_here(p);
    double share;

    if (ms < SAMPLE_MS)
        return;
    share = (double)ms / (double)(ms + RATE_MS);
    p->rate += share * ((double)(here - p->sampled) * 1000 / (double)ms - p->rate);
    if (now_ms - p->started_ms < RATE_MS)
        p->rate = rate_of(p, now_ms, false);
    p->sampled_ms = now_ms;
    p->sampled = here;
}

/* ---- output ---- */

static bool is_terminal(int fd)
{
    const char *termz = getenv("TERM");

    return isatty(fd) && termz && *termz && strcmp(termz, "dumb") != 0;
}

/* One column less than there are: a full line makes some terminals break it. */
static int width_of(int fd)
{
    struct winsize size;

    if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return WIDTH_DEFAULT - 1;
    return size.ws_col > 1 ? size.ws_col - 1 : 1;
}

void progress_init(struct progress *p, int64_t total)
{
    memset(p, 0, sizeof *p);
    p->total = total;
    p->unitz = "jobs";
    p->fd = STDERR_FILENO;
    p->is_terminal = is_terminal(p->fd);
    p->started_ms = p->sampled_ms = clock_mono_ms();
    p->drawn_ms = -1;
}

void progress_note(struct progress *p, const char *textz)
{
    str_copyz(p->note, sizeof p->note, str_z(textz));
    p->note[str_utf8_bad(str_z(p->note))] = '\0'; /* it may have been cut in a character */
}

static void put_note(const struct progress *p, int width, struct buf *b)
{
    struct str note = str_z(p->note);

    if (note.n > (size_t)width)
        note.n = (size_t)width;
    note.n = str_utf8_bad(note);
    buf_adds(b, note);
}

/* \033[J clears from the cursor on; the cursor rests at the start of the bar's line. */
static void draw_on_terminal(struct progress *p, int64_t now_ms, bool is_end, struct buf *b)
{
    int width = width_of(p->fd);

    buf_addz(b, "\r\033[J");
    progress_format(p, now_ms, width, is_end, b);
    if (is_end) {
        buf_addc(b, '\n');
    } else if (p->note[0]) {
        buf_addc(b, '\n');
        put_note(p, width, b);
        buf_addz(b, "\r\033[A");
    } else {
        buf_addc(b, '\r');
    }
    p->is_drawn = !is_end;
}

static void draw_plain(struct progress *p, int64_t now_ms, bool is_end, struct buf *b)
{
    progress_format(p, now_ms, 0, is_end, b);
    buf_addc(b, '\n');
    if (p->note[0] && !is_end && strcmp(p->note, p->told) != 0)
        buf_addf(b, "%s\n", p->note);
    str_copyz(p->told, sizeof p->told, str_z(p->note));
}

static void draw(struct progress *p, int64_t now_ms, bool is_end)
{
    struct buf b;

    buf_init(&b, LINE_MAX_BYTES);
    if (p->is_terminal)
        draw_on_terminal(p, now_ms, is_end, &b);
    else
        draw_plain(p, now_ms, is_end, &b);
    (void)file_write_all(p->fd, b.p, b.n); /* nobody is left to tell */
    buf_release(&b);
    p->drawn_ms = now_ms;
}

void progress_update(struct progress *p, int64_t now_ms)
{
    int64_t since_ms = p->drawn_ms >= 0 ? p->drawn_ms : p->started_ms;

    progress_sample(p, now_ms);
    if (p->is_terminal && (p->drawn_ms < 0 || now_ms - since_ms >= DRAW_MS))
        draw(p, now_ms, false);
    else if (!p->is_terminal && now_ms - since_ms >= PLAIN_MS)
        draw(p, now_ms, false);
}

void progress_clear(struct progress *p)
{
    static const char clear[] = "\r\033[J";

    if (!p->is_drawn)
        return;
    (void)file_write_all(p->fd, clear, sizeof clear - 1);
    p->is_drawn = false;
    p->drawn_ms = -1;
}

void progress_end(struct progress *p, int64_t now_ms)
{
    draw(p, now_ms, true);
}
