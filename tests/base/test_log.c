#include "base/json.h"
#include "base/log.h"
#include "tests/lib/test.h"
#include <fcntl.h>
#include <unistd.h>

/* Points stderr at a file, and gives what the file holds. */
static void catch_stderr(void)
{
    int fd = open("log", O_RDWR | O_CREAT | O_APPEND, 0600);

    CHECK(fd >= 0 && dup2(fd, STDERR_FILENO) == STDERR_FILENO);
}

static struct str caught(void)
{
    static char text[200000];
    ssize_t n = pread(STDERR_FILENO, text, sizeof text, 0);

    return str_of(text, n > 0 ? (size_t)n : 0);
}

TEST(json_line)
{
    struct json *j;
    struct str text;
    int64_t ms;

    catch_stderr();
    log_setup(LOG_INFO, LOG_JSON);
    log_debug("unseen", LI("x", 1));
    log_warn("finish", LZ("id", "a\"b\n\xFF"), LI("ms", -5), LS("none", STR_NONE));
    text = caught();
    CHECK(text.n > 0 && text.p[text.n - 1] == '\n');
    j = json_parse(text, NULL);
    CHECK_STR(json_str(json_get(j, "level")), "warn");
    CHECK_STR(json_str(json_get(j, "event")), "finish");
    CHECK_STR(json_str(json_get(j, "id")), "a\"b\n?");
    CHECK_STR(json_str(json_get(j, "none")), "");
    CHECK(json_int(json_get(j, "ms"), &ms) && ms == -5);
    CHECK_INT(json_str(json_get(j, "ts")).n, 24);
    json_free(j);
}

TEST(text_line)
{
    struct str text;

    catch_stderr();
    log_setup(LOG_DEBUG, LOG_TEXT);
    log_debug("go", LZ("id", "a-1"), LZ("why", "two words"), LZ("esc", "\x1b"), LI("n", 3));
    text = caught();
    CHECK_STR(str_of(text.p + 24, text.n - 24),
              " debug go id=a-1 why=\"two words\" esc=\"\\u001b\" n=3\n");
}

TEST(long_values_are_cut_and_still_json)
{
    static char long_text[100000];
    struct json *j;
    size_t i;

    for (i = 0; i + 1 < sizeof long_text; i++)
        long_text[i] = i % 3 ? '\x01' : '\xE2';
    catch_stderr();
    log_setup(LOG_INFO, LOG_JSON);
    log_info("long", LZ("text", long_text));
    j = json_parse(caught(), NULL);
    CHECK(j != NULL);
    CHECK_INT(json_str(json_get(j, "text")).n, 2048);
    json_free(j);
}
