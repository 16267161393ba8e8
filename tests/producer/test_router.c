#include "producer/http/router.h"
#include "tests/lib/test.h"

static void handle(struct request *q)
{
    (void)q;
}

static const struct route table[] = {
    {"GET", "/a", handle, NULL, NULL, 0, "", ""},
    {"POST", "/a", handle, NULL, NULL, 0, "", ""},
    {"GET", "/a/{id}", handle, NULL, NULL, 0, "", ""},
    {"DELETE", "/a/{id}", handle, NULL, NULL, 0, "", ""},
    {"GET", "/a/{id}/b/{name}", handle, NULL, NULL, 0, "", ""},
    {"GET", "/a/fixed", handle, NULL, NULL, 0, "", ""},
    {"GET", "/", handle, NULL, NULL, 0, "", ""},
    {NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL},
};

static struct str vars[REQUEST_VARS];
static unsigned mask;

static long find(const char *methodz, const char *pathz)
{
    const struct route *r = router_find(table, str_z(methodz), str_z(pathz), vars, &mask);

    return r ? r - table : -1;
}

TEST(finds_by_method_and_path)
{
    CHECK_INT(find("GET", "/a"), 0);
    CHECK_INT(find("POST", "/a"), 1);
    CHECK_INT(find("GET", "/"), 6);
    CHECK_INT(find("GET", "/a/x"), 2);
    CHECK_STR(vars[0], "x");
    CHECK_INT(find("DELETE", "/a/y.z"), 3);
    CHECK_STR(vars[0], "y.z");
    CHECK_INT(find("GET", "/a/x/b/n"), 4);
    CHECK_STR(vars[0], "x");
    CHECK_STR(vars[1], "n");
}

TEST(head_is_get)
{
    CHECK_INT(find("HEAD", "/a"), 0);
    CHECK_INT(find("HEAD", "/nope"), -1);
}

TEST(the_first_row_wins)
{
    CHECK_INT(find("GET", "/a/fixed"), 2);
}

TEST(paths_must_fit_whole)
{
    static const char *const paths[] = {"", "a", "/b", "/a/", "//a", "/a//b/n", "/a/x/b", "/a/x/b/",
                                        "/a/x/b/n/", "/a/x/c/n", "/A", "/ab", "//"};

    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        CHECK_INT(find("GET", paths[i]), -1);
        CHECK_INT(mask, 0);
    }
}

TEST(other_methods_of_a_path_are_told)
{
    char allow[64];

    CHECK_INT(find("PUT", "/a"), -1);
    CHECK_INT(mask, ROUTER_GET | ROUTER_POST);
    router_allow(mask, allow);
    CHECK_STR(str_z(allow), "GET, HEAD, POST");
    CHECK_INT(find("get", "/a/x"), -1); /* methods have a case */
    CHECK_INT(mask, ROUTER_GET | ROUTER_DELETE);
    router_allow(mask, allow);
    CHECK_STR(str_z(allow), "GET, HEAD, DELETE");
    router_allow(0, allow);
    CHECK_STR(str_z(allow), "");
}

TEST(every_route_has_a_handler_and_no_twin)
{
    for (const struct route *r = routes; r->methodz; r++) {
        struct str path = str_z(r->patternz);

        CHECK(r->handle != NULL);
        CHECK(r->docz[0] != '\0');
        CHECK(router_find(routes, str_z(r->methodz), path, vars, &mask) == r);
    }
}
