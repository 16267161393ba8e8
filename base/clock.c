#include "base/clock.h"
#include <time.h>

static int64_t read_ns(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t); /* cannot fail for these */
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t clock_wall_ms(void)
{
    return read_ns(CLOCK_REALTIME) / 1000000;
}

int64_t clock_mono_ms(void)
{
    return read_ns(CLOCK_MONOTONIC) / 1000000;
}

int64_t clock_mono_us(void)
{
    return read_ns(CLOCK_MONOTONIC) / 1000;
}

int64_t clock_boot_ms(void)
{
    return read_ns(CLOCK_BOOTTIME) / 1000000;
}

/* Days from 1970-01-01, for years from 0. Counts in years that begin in March, so that the leap day
 * is the last one. */
static int64_t days_of_date(int64_t year, int64_t month, int64_t day)
{
    int64_t y = month > 2 ? year : year - 1;
    int64_t m = month > 2 ? month - 3 : month + 9;

    if (y < 0) /* January and February of year 0 */
        return days_of_date(year + 400, month, day) - 146097;
    return y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
}

static int64_t days_in_month(int64_t year, int64_t month)
{
    bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

    if (month == 2)
        return is_leap ? 29 : 28;
    return month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
}

/* Takes exactly n digits off the front of *s. */
static bool take_digits(struct str *s, size_t n, int64_t *out)
{
    size_t i;

    if (s->n < n)
        return false;
    for (*out = 0, i = 0; i < n; i++) {
        if (s->p[i] < '0' || s->p[i] > '9')
            return false;
        *out = *out * 10 + (s->p[i] - '0');
    }
    *s = str_of(s->p + n, s->n - n);
    return true;
}

/* Takes one byte of `set` off the front of *s. */
static bool take_one(struct str *s, const char *setz, char *out)
{
    if (s->n == 0 || s->p[0] == '\0' || !strchr(setz, s->p[0]))
        return false;
    *out = s->p[0];
    *s = str_of(s->p + 1, s->n - 1);
    return true;
}

/* ".123" if it is there; digits past the third are dropped. */
static bool take_fraction_ms(struct str *s, int64_t *ms)
{
    int64_t digit, scale = 100;
    char c;

    *ms = 0;
    if (!take_one(s, ".", &c))
        return true;
    if (s->n == 0 || s->p[0] < '0' || s->p[0] > '9')
        return false;
    for (; take_digits(s, 1, &digit); scale /= 10)
        *ms += digit * scale;
    return true;
}

static bool take_offset_minutes(struct str *s, int64_t *minutes)
{
    int64_t h, m;
    char sign, c;

    if (!take_one(s, "Zz+-", &sign))
        return false;
    if (sign == 'Z' || sign == 'z') {
        *minutes = 0;
        return true;
    }
    if (!take_digits(s, 2, &h) || !take_one(s, ":", &c) || !take_digits(s, 2, &m))
        return false;
    *minutes = (sign == '-' ? -1 : 1) * (h * 60 + m);
    return h < 24 && m < 60;
}

bool clock_parse_rfc3339(struct str s, int64_t *ms)
{
    int64_t year, month, day, h, m, sec, fraction, offset;
    char c;

    if (!take_digits(&s, 4, &year) || !take_one(&s, "-", &c) || !take_digits(&s, 2, &month) ||
        !take_one(&s, "-", &c) || !take_digits(&s, 2, &day) || !take_one(&s, "Tt", &c) ||
        !take_digits(&s, 2, &h) || !take_one(&s, ":", &c) || !take_digits(&s, 2, &m) ||
        !take_one(&s, ":", &c) || !take_digits(&s, 2, &sec) || !take_fraction_ms(&s, &fraction) ||
        !take_offset_minutes(&s, &offset) || s.n > 0)
        return false;
    if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) || h > 23 ||
        m > 59 || sec > 60) /* 60: a leap second, which is the next one to us */
        return false;
    *ms = ((days_of_date(year, month, day) * 1440 + h * 60 + m - offset) * 60 + sec) * 1000 +
          fraction;
    return true;
}

/* Writes v as `width` digits and the byte that follows them. */
static char *put_digits(char *dst, int width, int v, char behind)
{
    int i;

    for (i = width - 1; i >= 0; i--) {
        dst[i] = (char)('0' + v % 10);
        v /= 10;
    }
    dst[width] = behind;
    return dst + width + 1;
}

void clock_format_rfc3339(int64_t ms, char *dst)
{
    const int64_t first = -62167219200000, last = 253402300799999; /* years 0 to 9999 */
    int64_t in_range = ms < first ? first : ms > last ? last : ms;
    time_t s = (time_t)((in_range - first) / 1000 + first / 1000);
    struct tm t;

    gmtime_r(&s, &t);
    dst = put_digits(dst, 4, t.tm_year + 1900, '-');
    dst = put_digits(dst, 2, t.tm_mon + 1, '-');
    dst = put_digits(dst, 2, t.tm_mday, 'T');
    dst = put_digits(dst, 2, t.tm_hour, ':');
    dst = put_digits(dst, 2, t.tm_min, ':');
    dst = put_digits(dst, 2, t.tm_sec, '.');
    dst = put_digits(dst, 3, (int)((in_range - first) % 1000), 'Z');
    *dst = '\0';
}

bool clock_parse_duration(struct str s, int64_t *ms)
{
    static const struct {
        struct str name;
        int64_t ms;
    } units[] = {
        {STR_INIT("ms"), 1},      {STR_INIT("s"), 1000}, {STR_INIT("m"), 60000},
        {STR_INIT("h"), 3600000}, {STR_INIT(""), 1000},
    };
    size_t n = 0, i;
    int64_t v;

    while (n < s.n && s.p[n] >= '0' && s.p[n] <= '9')
        n++;
    if (!str_int(str_of(s.p, n), &v))
        return false;
    for (i = 0; i < sizeof units / sizeof units[0]; i++)
        if (str_eq(str_of(s.p + n, s.n - n), units[i].name))
            return !__builtin_mul_overflow(v, units[i].ms, ms);
    return false;
}
