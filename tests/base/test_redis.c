/* Against a real redis-server, and against programs that only say they are one. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/redis.h"
#include "tests/lib/test.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIMIT_MS = 30000, SERVER_ARGS = 24, N_COMMANDS = 10000 };

/* ---- servers: each case is alone in its folder, so their sockets are there ---- */

static pid_t start_server(const char *sockz, const char *const *more)
{
    const char *args[SERVER_ARGS] = {
        "redis-server", "--port", "0", "--unixsocket", sockz, "--save", "", "--appendonly", "no"};
    size_t n = 9;
    pid_t pid;
    int log;

    while (more && *more)
        args[n++] = *more++;
    CHECK(n < SERVER_ARGS);
    pid = fork();
    if (pid == 0) {
        log = open("server.log", O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(log, 1);
        dup2(log, 2);
        execvp(args[0], (char *const *)(uintptr_t)args);
        _exit(127);
    }
    CHECK(pid > 0);
    return pid;
}

static void end_server(pid_t pid, int number)
{
    CHECK_INT(kill(pid, number), 0);
    CHECK_INT(waitpid(pid, NULL, 0), pid);
}

/* ---- a client on a loop ---- */

struct rig {
    uv_loop_t loop;
    struct redis *redis;
    int n_up;
};

struct answer {
    int n, code;
    int64_t number;
    char text[400];
};

static void on_up(void *data)
{
    ((struct rig *)data)->n_up++;
}

static void open_with(struct rig *rig, const char *urlz, struct redis_options o)
{
    struct err e = {0};

    uv_loop_init(&rig->loop);
    rig->n_up = 0;
    o.loop = &rig->loop;
    o.urlz = urlz;
    o.on_up = on_up;
    o.data = rig;
    rig->redis = redis_open(&o, &e);
    CHECK(rig->redis);
}

static void open_rig(struct rig *rig, const char *urlz)
{
    open_with(rig, urlz, (struct redis_options){.deadline_ms = 0});
}

static const char *here(const char *sockz)
{
    static char url[4200];
    char folder[4000];

    CHECK(getcwd(folder, sizeof folder));
    snprintf(url, sizeof url, "unix:%s/%s", folder, sockz);
    return url;
}

static void close_rig(struct rig *rig)
{
    redis_close(rig->redis);
    CHECK_INT(uv_run(&rig->loop, UV_RUN_DEFAULT), 0);
    CHECK_INT(uv_loop_close(&rig->loop), 0);
}

#define RUN_UNTIL(rig, cond) \
    do { \
        int64_t until_ = clock_mono_ms() + LIMIT_MS; \
        while (!(cond)) { \
            CHECK(clock_mono_ms() < until_); \
            turn(rig); \
        } \
    } while (0)

static void on_tick(uv_timer_t *timer)
{
    (void)timer;
}

/* One turn of the loop, of 5 ms at most. */
static void turn(struct rig *rig)
{
    uv_timer_t tick;

    uv_timer_init(&rig->loop, &tick);
    uv_timer_start(&tick, on_tick, 5, 0);
    uv_run(&rig->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&rig->loop, UV_RUN_NOWAIT);
}

static void on_answer(void *data, int code, const struct redis_reply *reply)
{
    struct answer *a = data;

    a->n++;
    a->code = code;
    a->number = redis_int(reply);
    str_copyz(a->text, sizeof a->text, redis_text(reply));
}

static int send_words(struct rig *rig, const char *linez, struct answer *a)
{
    struct str args[8];
    size_t n = 0;
    const char *end;

    memset(a, 0, sizeof *a);
    for (; *linez; linez = *end ? end + 1 : end) {
        end = strchrnul(linez, ' ');
        args[n++] = str_of(linez, (size_t)(end - linez));
    }
    return redis_send(rig->redis, args, n, on_answer, a);
}

/* Sends, and waits for the outcome. */
static struct answer ask(struct rig *rig, const char *linez)
{
    struct answer a;

    CHECK_INT(send_words(rig, linez, &a), 0);
    CHECK_INT(a.n, 0);
    RUN_UNTIL(rig, a.n > 0);
    return a;
}

static bool has_fault(struct rig *rig, const char *whyz)
{
    struct err e = {0};

    return redis_health(rig->redis, &e) < 0 && strstr(e.msg, whyz);
}

/* ---- a server that works ---- */

TEST(answers_of_all_types)
{
    struct rig rig;
    struct answer a;
    pid_t pid = start_server("r", NULL);

    open_rig(&rig, here("r"));
    CHECK(has_fault(&rig, "connecting"));
    RUN_UNTIL(&rig, rig.n_up == 1);
    CHECK_INT(redis_health(rig.redis, NULL), 0);
    CHECK_STR(str_z(ask(&rig, "SET k v").text), "OK");
    CHECK_STR(str_z(ask(&rig, "GET k").text), "v");
    CHECK_INT(ask(&rig, "INCR n").number, 1);
    a = ask(&rig, "GET none");
    CHECK_INT(a.code, 0);
    CHECK_STR(str_z(a.text), "");
    a = ask(&rig, "INCR k");
    CHECK_INT(a.code, ERR_INVALID);
    CHECK(strstr(a.text, "not an integer"));
    CHECK_INT(ask(&rig, "EVALSHA 0123456789012345678901234567890123456789 0").code, ERR_NOT_FOUND);
    close_rig(&rig);
    end_server(pid, SIGKILL);
}

static void on_array(void *data, int code, const struct redis_reply *reply)
{
    CHECK_INT(code, 0);
    CHECK_INT(redis_count(reply), 3);
    CHECK_STR(redis_text(redis_item(reply, 0)), "a");
    CHECK_STR(redis_text(redis_item(reply, 1)), "");
    CHECK(!redis_text(redis_item(reply, 2)).p);
    CHECK(!redis_item(reply, 3));
    CHECK_INT(redis_count(redis_item(reply, 0)), 0);
    ++*(int *)data;
}

TEST(arrays_and_bytes)
{
    static const char bytes[] = "a\0\r\n$5\xff";
    struct str set[] = {STR("SET"), STR("k"), {bytes, sizeof bytes}};
    struct rig rig;
    struct answer a = {0};
    int n = 0;
    pid_t pid = start_server("r", NULL);

    open_rig(&rig, here("r"));
    RUN_UNTIL(&rig, rig.n_up);
    ask(&rig, "MSET x a y z");
    CHECK_INT(
        redis_send(rig.redis, (struct str[]){STR("SET"), STR("y"), STR("")}, 3, on_answer, &a), 0);
    CHECK_INT(redis_send(rig.redis, (struct str[]){STR("MGET"), STR("x"), STR("y"), STR("none")}, 4,
                         on_array, &n),
              0);
    RUN_UNTIL(&rig, n == 1);
    CHECK_INT(redis_send(rig.redis, set, 3, on_answer, &a), 0);
    CHECK_INT(ask(&rig, "STRLEN k").number, (int)sizeof bytes);
    close_rig(&rig);
    end_server(pid, SIGKILL);
}

struct counter {
    int64_t n, wrong;
};

static void on_count(void *data, int code, const struct redis_reply *reply)
{
    struct counter *c = data;

    c->n++;
    c->wrong += code != 0 || redis_int(reply) != c->n;
}

TEST(ten_thousand_in_one_turn_come_back_in_order)
{
    struct rig rig;
    struct counter c = {0, 0};
    pid_t pid = start_server("r", NULL);
    int i;

    open_rig(&rig, here("r"));
    RUN_UNTIL(&rig, rig.n_up);
    for (i = 0; i < N_COMMANDS; i++)
        CHECK_INT(redis_send(rig.redis, (struct str[]){STR("INCR"), STR("n")}, 2, on_count, &c), 0);
    CHECK_INT(c.n, 0);
    RUN_UNTIL(&rig, c.n == N_COMMANDS);
    CHECK_INT(c.wrong, 0);
    close_rig(&rig);
    end_server(pid, SIGKILL);
}

struct heard {
    struct rig rig; /* first */
    int n;
    char last[100];
};

static void on_message(void *data, struct str channel, struct str text)
{
    struct heard *heard = data;

    CHECK_STR(channel, "c");
    heard->n++;
    str_copyz(heard->last, sizeof heard->last, text);
}

TEST(a_subscriber_is_told_and_still_answered)
{
    struct heard heard = {.n = 0};
    struct rig rig;
    pid_t pid = start_server("r", NULL);

    open_rig(&rig, here("r"));
    open_with(&heard.rig, here("r"), (struct redis_options){.on_message = on_message});
    RUN_UNTIL(&rig, rig.n_up);
    RUN_UNTIL(&heard.rig, heard.rig.n_up);
    CHECK_INT(ask(&heard.rig, "SUBSCRIBE c").code, 0);
    for (int i = 0; i < 1000; i++)
        CHECK_INT(ask(&rig, "PUBLISH c x").number, 1);
    ask(&rig, "PUBLISH c y");
    RUN_UNTIL(&heard.rig, heard.n == 1001);
    CHECK_STR(str_z(heard.last), "y");
    CHECK_INT(ask(&heard.rig, "SUBSCRIBE d").code, 0);
    CHECK_INT(ask(&heard.rig, "UNSUBSCRIBE c").code, 0);
    CHECK_INT(ask(&rig, "PUBLISH c z").number, 0);
    CHECK_INT(redis_health(heard.rig.redis, NULL), 0);
    end_server(pid, SIGKILL);
    pid = start_server("r", NULL);
    RUN_UNTIL(&heard.rig, heard.rig.n_up == 2); /* as one that has subscribed to nothing */
    CHECK_INT(ask(&heard.rig, "PING").code, 0);
    close_rig(&heard.rig);
    close_rig(&rig);
    end_server(pid, SIGKILL);
}

TEST(past_its_bounds_it_takes_no_more)
{
    struct rig rig;
    struct answer a, b, c;
    char big[2000];
    struct str set[] = {STR("SET"), STR("k"), {big, sizeof big}};
    pid_t pid = start_server("r", NULL);

    memset(big, 'x', sizeof big);
    open_with(&rig, here("r"), (struct redis_options){.max_commands = 2, .max_bytes = 1000});
    RUN_UNTIL(&rig, rig.n_up);
    CHECK_INT(send_words(&rig, "PING", &a), 0);
    CHECK_INT(send_words(&rig, "PING", &b), 0);
    CHECK_INT(send_words(&rig, "PING", &c), ERR_FULL);
    RUN_UNTIL(&rig, a.n + b.n == 2);
    CHECK_INT(c.n, 0);
    CHECK_INT(redis_send(rig.redis, set, 3, on_answer, &c), ERR_FULL);
    CHECK_STR(str_z(ask(&rig, "PING").text), "PONG");
    close_rig(&rig);
    end_server(pid, SIGKILL);
}

TEST(tcp_by_name_with_a_database)
{
    struct rig rig;
    char port[8], url[64];
    const char *more[] = {"--port", port, "--bind", "127.0.0.1", NULL};
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    pid_t pid;

    CHECK_INT(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    CHECK_INT(getsockname(fd, (struct sockaddr *)&at, &n), 0);
    close(fd);
    snprintf(port, sizeof port, "%d", ntohs(at.sin_port));
    snprintf(url, sizeof url, "redis://localhost:%s/3", port);
    pid = start_server("r", more);
    open_rig(&rig, url);
    RUN_UNTIL(&rig, rig.n_up);
    ask(&rig, "SET k v");
    ask(&rig, "SELECT 0");
    CHECK_STR(str_z(ask(&rig, "GET k").text), "");
    ask(&rig, "SELECT 3");
    CHECK_STR(str_z(ask(&rig, "GET k").text), "v");
    close_rig(&rig);
    end_server(pid, SIGKILL);
}

/* ---- logging in ---- */

TEST(password_and_user)
{
    const char *more[] = {"--requirepass", "s3cret", "--user", "me", "on",
                          ">other",        "~*",     "+@all",  NULL};
    static char url[4300];
    struct rig rig;
    pid_t pid = start_server("r", more);

    snprintf(url, sizeof url, "unix://:s3cret@%s", here("r") + 5);
    open_rig(&rig, url);
    RUN_UNTIL(&rig, rig.n_up);
    CHECK_STR(str_z(ask(&rig, "ACL WHOAMI").text), "default");
    close_rig(&rig);
    snprintf(url, sizeof url, "unix://me:other@%s", here("r") + 5);
    open_rig(&rig, url);
    RUN_UNTIL(&rig, rig.n_up);
    CHECK_STR(str_z(ask(&rig, "ACL WHOAMI").text), "me");
    close_rig(&rig);
    end_server(pid, SIGKILL);
}

TEST(a_wrong_password_is_told)
{
    const char *more[] = {"--requirepass", "s3cret", NULL};
    static char url[4300];
    struct rig rig;
    struct answer a;
    pid_t pid = start_server("r", more);

    snprintf(url, sizeof url, "unix://:guess@%s", here("r") + 5);
    open_rig(&rig, url);
    RUN_UNTIL(&rig, has_fault(&rig, "WRONGPASS"));
    CHECK(!has_fault(&rig, "guess"));
    CHECK_INT(send_words(&rig, "PING", &a), ERR_UNREACHABLE);
    close_rig(&rig);
    open_rig(&rig, here("r"));
    RUN_UNTIL(&rig, has_fault(&rig, "NOAUTH"));
    CHECK_INT(rig.n_up, 0);
    close_rig(&rig);
    end_server(pid, SIGKILL);
}

/* ---- servers that go away ---- */

TEST(down_at_the_start)
{
    struct rig rig;
    struct answer a;
    pid_t pid;

    open_rig(&rig, here("r"));
    CHECK_INT(send_words(&rig, "PING", &a), ERR_UNREACHABLE);
    RUN_UNTIL(&rig, has_fault(&rig, "no such file"));
    pid = start_server("r", NULL);
    RUN_UNTIL(&rig, rig.n_up);
    CHECK_STR(str_z(ask(&rig, "PING").text), "PONG");
    close_rig(&rig);
    end_server(pid, SIGKILL);
}

TEST(killed_and_back)
{
    struct rig rig;
    struct answer a, b;
    pid_t pid = start_server("r", NULL);

    open_rig(&rig, here("r"));
    RUN_UNTIL(&rig, rig.n_up == 1);
    CHECK_INT(send_words(&rig, "BLPOP none 0", &a), 0);
    CHECK_INT(send_words(&rig, "PING", &b), 0);
    turn(&rig);
    end_server(pid, SIGKILL);
    RUN_UNTIL(&rig, a.n == 1 && b.n == 1);
    CHECK_INT(a.code, ERR_CLOSED);
    CHECK_INT(b.code, ERR_CLOSED);
    CHECK(has_fault(&rig, "/r: "));
    pid = start_server("r", NULL);
    RUN_UNTIL(&rig, rig.n_up == 2);
    CHECK_STR(str_z(ask(&rig, "PING").text), "PONG");
    CHECK_INT(a.n, 1);
    close_rig(&rig);
    end_server(pid, SIGKILL);
}

/* Waits in a stopped server, then is answered: its reply is not the next one's. */
TEST(late_replies_are_dropped)
{
    struct rig rig;
    struct answer a, b;
    pid_t pid = start_server("r", NULL);

    open_with(&rig, here("r"), (struct redis_options){.deadline_ms = 200});
    RUN_UNTIL(&rig, rig.n_up);
    CHECK_INT(kill(pid, SIGSTOP), 0);
    CHECK_INT(send_words(&rig, "INCR n", &a), 0);
    RUN_UNTIL(&rig, a.n);
    CHECK_INT(a.code, ERR_TIMEOUT);
    CHECK_INT(send_words(&rig, "INCR n", &b), 0);
    CHECK_INT(kill(pid, SIGCONT), 0);
    RUN_UNTIL(&rig, b.n);
    CHECK_INT(b.code, 0);
    CHECK_INT(b.number, 2);
    CHECK_INT(a.n, 1);
    CHECK_INT(rig.n_up, 1);
    close_rig(&rig);
    end_server(pid, SIGKILL);
}

TEST(a_server_that_hangs_is_given_up)
{
    struct rig rig;
    struct answer a;
    pid_t pid = start_server("r", NULL);

    open_with(&rig, here("r"), (struct redis_options){.deadline_ms = 100});
    RUN_UNTIL(&rig, rig.n_up == 1);
    CHECK_INT(kill(pid, SIGSTOP), 0);
    RUN_UNTIL(&rig, has_fault(&rig, "does not answer")); /* although nobody asked anything of it */
    CHECK_INT(send_words(&rig, "PING", &a), ERR_UNREACHABLE);
    CHECK_INT(kill(pid, SIGCONT), 0);
    RUN_UNTIL(&rig, rig.n_up == 2);
    close_rig(&rig);
    end_server(pid, SIGKILL);
}

/* ---- servers that refuse ---- */

TEST(out_of_memory)
{
    const char *more[] = {"--maxmemory", "1", "--maxmemory-policy", "noeviction", NULL};
    struct rig rig;
    struct answer a;
    pid_t pid = start_server("r", more);

    open_rig(&rig, here("r"));
    RUN_UNTIL(&rig, rig.n_up);
    a = ask(&rig, "SET k v");
    CHECK_INT(a.code, ERR_FULL);
    CHECK(str_starts(str_z(a.text), STR("OOM ")));
    CHECK_INT(ask(&rig, "GET k").code, 0);
    CHECK_INT(redis_health(rig.redis, NULL), 0);
    close_rig(&rig);
    end_server(pid, SIGKILL);
}

TEST(a_replica_that_only_reads)
{
    const char *more[] = {"--replicaof", "127.0.0.1", "1", NULL};
    struct rig rig;
    pid_t pid = start_server("r", more);

    open_rig(&rig, here("r"));
    RUN_UNTIL(&rig, rig.n_up);
    CHECK_INT(ask(&rig, "SET k v").code, ERR_BUSY);
    close_rig(&rig);
    end_server(pid, SIGKILL);
}

/* ---- what is no Redis ---- */

/* Takes every connection and says this to it. */
static pid_t start_liar(const char *saysz)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "r"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), client;
    pid_t pid;

    CHECK_INT(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    CHECK_INT(listen(fd, 8), 0);
    pid = fork();
    while (pid == 0) {
        client = accept(fd, NULL, NULL);
        if (client >= 0 && write(client, saysz, strlen(saysz)) < 0)
            _exit(1);
    }
    close(fd);
    return pid;
}

static void check_liar(const char *saysz, const char *whyz)
{
    struct rig rig;
    pid_t pid = start_liar(saysz);

    open_with(&rig, here("r"), (struct redis_options){.deadline_ms = 100});
    RUN_UNTIL(&rig, has_fault(&rig, whyz));
    close_rig(&rig);
    end_server(pid, SIGKILL);
}

TEST(garbage)
{
    check_liar("I am no Redis\r\n", "Protocol error");
}

TEST(silence)
{
    check_liar("", "does not answer");
}

TEST(answers_that_nobody_asked_for)
{
    check_liar("+PONG\r\n+PONG\r\n", "nobody asked");
}

TEST(an_error_at_once)
{
    check_liar("-ERR max number of clients \x01 reached\r\n", "clients   reached");
}

/* ---- the client's end ---- */

static void on_close(void *data, int code, const struct redis_reply *reply)
{
    struct rig *rig = data;

    (void)reply;
    CHECK_INT(code, 0);
    redis_close(rig->redis);
}

TEST(closing_from_a_callback_tells_the_others)
{
    struct rig rig;
    struct answer a = {0};
    struct str ping = STR("PING");
    pid_t pid = start_server("r", NULL);

    open_rig(&rig, here("r"));
    RUN_UNTIL(&rig, rig.n_up);
    CHECK_INT(redis_send(rig.redis, &ping, 1, on_close, &rig), 0);
    CHECK_INT(send_words(&rig, "PING", &a), 0);
    CHECK_INT(uv_run(&rig.loop, UV_RUN_DEFAULT), 0);
    CHECK_INT(a.n, 1);
    CHECK_INT(a.code, ERR_CLOSED);
    CHECK_INT(uv_loop_close(&rig.loop), 0);
    end_server(pid, SIGKILL);
}

TEST(closing_while_it_connects)
{
    struct rig rig;

    open_rig(&rig, "redis://localhost:1");
    close_rig(&rig);
    open_rig(&rig, here("none"));
    close_rig(&rig);
}

TEST(a_url_that_is_none)
{
    struct redis_options o = {.urlz = "rediss://h"};
    struct err e = {0};

    CHECK(!redis_open(&o, &e));
    CHECK_INT(e.code, ERR_INVALID);
}
