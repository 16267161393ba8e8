#include "base/redis_url.h"
#include "tests/lib/test.h"

static void check(const char *textz, const char *hostz, int port, int db, const char *userz,
                  const char *passwordz, const char *namez)
{
    struct redis_url u;
    struct err e = {0};

    CHECK_INT(redis_url_parse(&u, str_z(textz), &e), 0);
    CHECK_STR(str_z(u.host), hostz);
    CHECK_INT(u.port, port);
    CHECK_INT(u.db, db);
    CHECK_STR(str_z(u.user), userz);
    CHECK_STR(str_z(u.password), passwordz);
    CHECK_STR(str_z(u.name), namez);
    redis_url_release(&u);
}

static void check_unix(const char *textz, const char *pathz, int db, const char *userz,
                       const char *passwordz)
{
    struct redis_url u;
    struct err e = {0};

    CHECK_INT(redis_url_parse(&u, str_z(textz), &e), 0);
    CHECK(!u.host);
    CHECK_STR(str_z(u.path), pathz);
    CHECK_STR(str_z(u.name), pathz);
    CHECK_INT(u.db, db);
    CHECK_STR(str_z(u.user), userz);
    CHECK_STR(str_z(u.password), passwordz);
    redis_url_release(&u);
}

static void check_error(const char *textz, const char *whyz)
{
    struct redis_url u;
    struct err e = {0};

    CHECK_INT(redis_url_parse(&u, str_z(textz), &e), ERR_INVALID);
    CHECK(strstr(e.msg, whyz));
    CHECK(!strstr(e.msg, "s3cret"));
}

TEST(hosts)
{
    check("redis://localhost", "localhost", 6379, 0, "", "", "localhost:6379");
    check("redis://localhost/", "localhost", 6379, 0, "", "", "localhost:6379");
    check("redis://10.0.0.1:7000/3", "10.0.0.1", 7000, 3, "", "", "10.0.0.1:7000");
    check("redis://[::1]:7000/3", "::1", 7000, 3, "", "", "[::1]:7000");
    check("redis://[::1]", "::1", 6379, 0, "", "", "[::1]:6379");
}

TEST(users_and_passwords)
{
    check("redis://:s3cret@h:1", "h", 1, 0, "", "s3cret", "h:1");
    check("redis://me:s3cret@h/2", "h", 6379, 2, "me", "s3cret", "h:6379");
    check("redis://me:a%40b%2Fc%3a%25@h", "h", 6379, 0, "me", "a@b/c:%", "h:6379");
    check("redis://me:p@ss@h", "h", 6379, 0, "me", "p@ss", "h:6379");
    check("redis://me:a:b@h", "h", 6379, 0, "me", "a:b", "h:6379");
}

TEST(sockets)
{
    check_unix("unix:/run/redis.sock", "/run/redis.sock", 0, "", "");
    check_unix("unix:///run/redis.sock?db=5", "/run/redis.sock", 5, "", "");
    check_unix("unix://me:s3cret@/run/redis.sock", "/run/redis.sock", 0, "me", "s3cret");
}

TEST(what_is_none)
{
    check_error("", "must be redis://");
    check_error("localhost:6379", "must be redis://");
    check_error("http://localhost", "must be redis://");
    check_error("rediss://localhost", "TLS");
    check_error("redis://", "no host");
    check_error("redis://:1", "no host");
    check_error("redis://h:0", "port");
    check_error("redis://h:65536", "port");
    check_error("redis://h:x", "port");
    check_error("redis://h:", "port");
    check_error("redis://h/x", "database");
    check_error("redis://h/-1", "database");
    check_error("redis://h/1/2", "database");
    check_error("redis://[::1", "malformed");
    check_error("redis://[::1]x", "malformed");
    check_error("redis://s3cret@h", "user:password");
    check_error("redis://me:@h", "user:password");
    check_error("redis://me:s3cret%@h", "escape");
    check_error("redis://me:s3cret%4@h", "escape");
    check_error("redis://me:s3cret%zz@h", "escape");
    check_error("redis://me:s3cret%00@h", "escape");
    check_error("unix:", "path");
    check_error("unix:run/redis.sock", "path");
    check_error("unix:/run/redis.sock?x=1", "?db=n");
    check_error(
        "unix:/a/path/that/no/socket/can/have/for/the/address/of/one/has/a/hundred/and/eight/"
        "bytes/at/most/with/its/end/and/this/one/has/more",
        "at most 107");
}
