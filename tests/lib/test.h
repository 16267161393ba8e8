/* The harness of all unit tests. A test program is test.c (which has main), the code under test,
 * and a file of cases:
 *
 *     TEST(eat_drops_the_front)
 *     {
 *         ...
 *         CHECK_INT(b.n, 3);
 *         CHECK_STR(buf_str(&b), "def");
 *     }
 *
 * Every case runs in a child process of its own, in an empty temporary directory of its own as the
 * working directory, for at most 60 s. The directory goes when the case passes; processes that a
 * case leaves behind are killed. A check that fails prints where and what, and ends the case there.
 *
 * Usage: test_x [case]. Prints TAP lines; exits with 0 when a case ran and all that
 * ran passed. */
#pragma once
#include "base/str.h"

struct test_case {
    const char *namez;
    void (*run)(void);
    struct test_case *next;
};

/* Used by the macros below. */
void test_add(struct test_case *c);
_Noreturn void test_fail(const char *filez, int line, const char *textz);
void test_check_int(const char *filez, int line, const char *textz, int64_t got, int64_t want);
void test_check_str(const char *filez, int line, const char *textz, struct str got,
                    struct str want);

/* Opens and registers a case; its body follows. */
#define TEST(name)                                                                                 \
    static void test_##name(void);                                                                 \
    __attribute__((constructor)) static void add_test_##name(void)                                 \
    {                                                                                              \
        static struct test_case case_ = {#name, test_##name, NULL};                                \
        test_add(&case_);                                                                          \
    }                                                                                              \
    static void test_##name(void)

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond))                                                                               \
            test_fail(__FILE__, __LINE__, #cond);                                                  \
    } while (0)
/* Two integers of any type. */
#define CHECK_INT(got, want)                                                                       \
    test_check_int(__FILE__, __LINE__, #got, (int64_t)(got), (int64_t)(want))
/* A struct str and a NUL-terminated string. */
#define CHECK_STR(got, wantz) test_check_str(__FILE__, __LINE__, #got, (got), str_z(wantz))
