#include "store/nodes.h"
#include "tests/lib/test.h"
#include <pthread.h>

static const char *const models[] = {"llama", "q\"x", NULL};

static struct node_status sample(const char *namez, const char *statez)
{
    return (struct node_status){.namez = namez,
                                .urlz = "http://h:1",
                                .apiz = "ollama",
                                .statez = statez,
                                .errorz = "",
                                .slots = 4,
                                .busy = 1,
                                .weight = 50,
                                .n_calls = 7,
                                .n_failed = 2,
                                .checked_at = 0,
                                .latency_ms_p50 = -1,
                                .latency_ms_p95 = 30,
                                .models = models};
}

TEST(prints_what_was_put)
{
    struct nodes *ns = nodes_new(3);
    struct node_status a = sample("gpu0", "up"), b = sample("gpu1", "down");
    struct buf out;
    int n_up = -1, n_slots = -1;

    buf_init(&out, 1 << 16);
    nodes_print(ns, &out, &n_up, &n_slots);
    CHECK_STR(buf_str(&out), "[]");
    CHECK_INT(n_up + n_slots, 0);
    nodes_put(ns, 0, &a);
    b.errorz = "refused";
    b.models = NULL;
    b.checked_at = 99;
    nodes_put(ns, 2, &b);
    buf_clear(&out);
    nodes_print(ns, &out, &n_up, &n_slots);
    CHECK_INT(n_up, 1);
    CHECK_INT(n_slots, 4);
    CHECK_STR(buf_str(&out),
              "[{\"name\":\"gpu0\",\"url\":\"http://h:1\",\"api\":\"ollama\",\"state\":\"up\","
              "\"error\":null,\"slots\":4,\"busy\":1,\"weight\":50,\"calls\":7,\"failed\":2,"
              "\"checked_at\":null,\"latency_ms\":{\"p50\":null,\"p95\":30},"
              "\"models\":[\"llama\",\"q\\\"x\"]},"
              "{\"name\":\"gpu1\",\"url\":\"http://h:1\",\"api\":\"ollama\",\"state\":\"down\","
              "\"error\":\"refused\",\"slots\":4,\"busy\":1,\"weight\":50,\"calls\":7,\"failed\":2,"
              "\"checked_at\":99,\"latency_ms\":{\"p50\":null,\"p95\":30},\"models\":[]}]");
    buf_release(&out);
    nodes_free(ns);
}

static void *put_many(void *data)
{
    struct node_status a = sample("gpu0", "up"), b = sample("gpu0", "down");
    int i;

    for (i = 0; i < 2000; i++)
        nodes_put(data, 0, i % 2 ? &a : &b);
    return NULL;
}

TEST(put_and_print_from_two_threads)
{
    struct nodes *ns = nodes_new(1);
    pthread_t thread;
    struct buf out;
    int i, n_up, n_slots;

    buf_init(&out, 1 << 16);
    CHECK_INT(pthread_create(&thread, NULL, put_many, ns), 0);
    for (i = 0; i < 2000; i++) {
        buf_clear(&out);
        nodes_print(ns, &out, &n_up, &n_slots);
        CHECK_INT(n_slots, 4 * n_up);
    }
    pthread_join(thread, NULL);
    buf_release(&out);
    nodes_free(ns);
}
