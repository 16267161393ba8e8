/*
 * What tests ask of a Kafka besides records: topics, settings, offsets, a group's commits. It links
 * nothing of genq, as it helps to judge it; a call is a few milliseconds, where Kafka's own tools
 * start a JVM.
 *
 * Usage: kafka_admin [-X NAME=VALUE]... SERVERS COMMAND ARGUMENT...
 *
 *   create TOPIC PARTITIONS COPIES [NAME=VALUE]...    COPIES -1: the broker's default
 *   delete TOPIC
 *   partitions TOPIC N                     adds partitions, up to N
 *   settings TOPIC                         {"name", "value"} each
 *   set TOPIC NAME=VALUE...                all others go back to their defaults
 *   offsets TOPIC                          {"partition", "low", "high"} each; high is the next one
 *   trim TOPIC PARTITION OFFSET            deletes the records before OFFSET
 *   group GROUP                            {"topic", "partition", "offset", "metadata"} each
 *   commit GROUP TOPIC PARTITION OFFSET METADATA
 *   version                                {"version": "2.0.2", "number"}: librdkafka's; asks no Kafka
 *
 * SERVERS is host:port,...; -X sets a property of librdkafka. Answers are JSON lines on stdout.
 * A Kafka that starts or elects leaders gets 30 s to do so. Ends with 1 and Kafka's words on stderr
 * when Kafka refuses or does not answer, with 2 on wrong usage.
 */
#include <librdkafka/rdkafka.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_S 30
#define LIMIT_MS (LIMIT_S * 1000)

struct admin {
    rd_kafka_t *kafka;
    rd_kafka_queue_t *queue;
    rd_kafka_AdminOptions_t *options;
    rd_kafka_event_t *answer; /* to the last request */
    char text[512];           /* of the last error */
    time_t end;               /* when an error that passes is given up */
};

/* Fails before it has printed anything, so that it can be tried again. */
typedef rd_kafka_resp_err_t step(struct admin *admin, char **argv);

static __attribute__((noreturn, format(printf, 2, 3))) void die(int status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("kafka_admin: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(status);
}

static time_t now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* Keeps the error's text (NULL: the usual one), and gives the error. */
static rd_kafka_resp_err_t keep(struct admin *admin, rd_kafka_resp_err_t error, const char *text)
{
    if (error) {
        snprintf(admin->text, sizeof admin->text, "%s: %s", rd_kafka_err2name(error),
                 text ? text : rd_kafka_err2str(error));
    }
    return error;
}

static bool passes(rd_kafka_resp_err_t error)
{
    switch (error) {
    case RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS:
    case RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_COORDINATOR:
    case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION:
        return true;
    default:
        return false;
    }
}

static rd_kafka_resp_err_t persist(struct admin *admin, step *try, char **argv)
{
    rd_kafka_resp_err_t error;
    while (passes(error = try(admin, argv)) && now_s() < admin->end) {
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    return error;
}

static int64_t number(const char *text, int64_t max)
{
    char *end;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || value < -1 || value > max) {
        die(2, "not a number from -1 to %lld: %s", (long long)max, text);
    }
    return value;
}

static const char *value_of(const char *pair)
{
    const char *equals = strchr(pair, '=');
    if (!equals) {
        die(2, "not NAME=VALUE: %s", pair);
    }
    return equals + 1;
}

/* The caller frees it. */
static char *name_of(const char *pair)
{
    return strndup(pair, (size_t)(value_of(pair) - pair) - 1);
}

static void print_string(const char *key, const char *text)
{
    printf("\"%s\": ", key);
    if (!text) {
        fputs("null", stdout);
        return;
    }
    putchar('"');
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            printf("\\%c", c);
        } else if (c < 0x20) {
            printf("\\u%04x", c);
        } else {
            putchar(c);
        }
    }
    putchar('"');
}

static rd_kafka_resp_err_t await_answer(struct admin *admin)
{
    if (admin->answer) {
        rd_kafka_event_destroy(admin->answer);
    }
    admin->answer = rd_kafka_queue_poll(admin->queue, LIMIT_MS + 1000);
    if (!admin->answer) {
        die(1, "no answer");
    }
    return keep(admin, rd_kafka_event_error(admin->answer),
                rd_kafka_event_error_string(admin->answer));
}

static rd_kafka_resp_err_t fetch_metadata(struct admin *admin, const char *topic,
                                          const struct rd_kafka_metadata **metadata)
{
    rd_kafka_topic_t *handle = rd_kafka_topic_new(admin->kafka, topic, NULL);
    rd_kafka_resp_err_t error = rd_kafka_metadata(admin->kafka, 0, handle, metadata, LIMIT_MS);
    rd_kafka_topic_destroy(handle);
    return keep(admin, error, NULL);
}

/* A new topic comes to the brokers' metadata a moment after its creation was answered. */
static rd_kafka_resp_err_t find_leaders(struct admin *admin, char **argv)
{
    const struct rd_kafka_metadata *metadata;
    rd_kafka_resp_err_t error = fetch_metadata(admin, argv[0], &metadata);
    if (error) {
        return error;
    }
    const struct rd_kafka_metadata_topic *topic = &metadata->topics[0];
    bool has = topic->partition_cnt == number(argv[1], INT32_MAX);
    for (int i = 0; has && i < topic->partition_cnt; i++) {
        has = topic->partitions[i].leader >= 0;
    }
    rd_kafka_metadata_destroy(metadata);
    return has ? 0 : keep(admin, RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, NULL);
}

static rd_kafka_resp_err_t first_error(struct admin *admin, const rd_kafka_topic_result_t **topics,
                                       size_t n)
{
    for (size_t i = 0; i < n; i++) {
        rd_kafka_resp_err_t error = rd_kafka_topic_result_error(topics[i]);
        if (error) {
            return keep(admin, error, rd_kafka_topic_result_error_string(topics[i]));
        }
    }
    return 0;
}

static rd_kafka_NewTopic_t *new_topic(char **argv)
{
    char text[256];
    rd_kafka_NewTopic_t *topic = rd_kafka_NewTopic_new(
        argv[0], (int)number(argv[1], 10000), (int)number(argv[2], 100), text, sizeof text);
    if (!topic) {
        die(2, "%s", text);
    }
    for (char **pair = argv + 3; *pair; pair++) {
        char *name = name_of(*pair);
        rd_kafka_NewTopic_set_config(topic, name, value_of(*pair));
        free(name);
    }
    return topic;
}

static rd_kafka_resp_err_t create(struct admin *admin, char **argv)
{
    rd_kafka_NewTopic_t *topic = new_topic(argv);
    rd_kafka_CreateTopics(admin->kafka, &topic, 1, admin->options, admin->queue);
    rd_kafka_NewTopic_destroy(topic);
    rd_kafka_resp_err_t error = await_answer(admin);
    if (error) {
        return error;
    }
    size_t n;
    const rd_kafka_topic_result_t **topics =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(admin->answer), &n);
    error = first_error(admin, topics, n);
    return error ? error : persist(admin, find_leaders, argv);
}

static rd_kafka_resp_err_t delete_topic(struct admin *admin, char **argv)
{
    rd_kafka_DeleteTopic_t *topic = rd_kafka_DeleteTopic_new(argv[0]);
    rd_kafka_DeleteTopics(admin->kafka, &topic, 1, admin->options, admin->queue);
    rd_kafka_DeleteTopic_destroy(topic);
    rd_kafka_resp_err_t error = await_answer(admin);
    if (error) {
        return error;
    }
    size_t n;
    const rd_kafka_topic_result_t **topics =
        rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(admin->answer), &n);
    return first_error(admin, topics, n);
}

static rd_kafka_resp_err_t add_partitions(struct admin *admin, char **argv)
{
    char text[256];
    rd_kafka_NewPartitions_t *more =
        rd_kafka_NewPartitions_new(argv[0], (size_t)number(argv[1], 10000), text, sizeof text);
    if (!more) {
        die(2, "%s", text);
    }
    rd_kafka_CreatePartitions(admin->kafka, &more, 1, admin->options, admin->queue);
    rd_kafka_NewPartitions_destroy(more);
    rd_kafka_resp_err_t error = await_answer(admin);
    if (error) {
        return error;
    }
    size_t n;
    const rd_kafka_topic_result_t **topics = rd_kafka_CreatePartitions_result_topics(
        rd_kafka_event_CreatePartitions_result(admin->answer), &n);
    error = first_error(admin, topics, n);
    return error ? error : persist(admin, find_leaders, argv);
}

static rd_kafka_resp_err_t resource_error(struct admin *admin, const rd_kafka_ConfigResource_t *one)
{
    return keep(admin, rd_kafka_ConfigResource_error(one),
                rd_kafka_ConfigResource_error_string(one));
}

static rd_kafka_resp_err_t print_settings(struct admin *admin, char **argv)
{
    rd_kafka_ConfigResource_t *topic =
        rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, argv[0]);
    rd_kafka_DescribeConfigs(admin->kafka, &topic, 1, admin->options, admin->queue);
    rd_kafka_ConfigResource_destroy(topic);
    rd_kafka_resp_err_t error = await_answer(admin);
    if (error) {
        return error;
    }
    size_t n;
    const rd_kafka_ConfigResource_t **resources = rd_kafka_DescribeConfigs_result_resources(
        rd_kafka_event_DescribeConfigs_result(admin->answer), &n);
    error = resource_error(admin, resources[0]);
    if (error) {
        return error;
    }
    const rd_kafka_ConfigEntry_t **entries = rd_kafka_ConfigResource_configs(resources[0], &n);
    for (size_t i = 0; i < n; i++) {
        putchar('{');
        print_string("name", rd_kafka_ConfigEntry_name(entries[i]));
        fputs(", ", stdout);
        print_string("value", rd_kafka_ConfigEntry_value(entries[i]));
        puts("}");
    }
    return 0;
}

static rd_kafka_resp_err_t set_settings(struct admin *admin, char **argv)
{
    rd_kafka_ConfigResource_t *topic =
        rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, argv[0]);
    for (char **pair = argv + 1; *pair; pair++) {
        char *name = name_of(*pair);
        rd_kafka_ConfigResource_set_config(topic, name, value_of(*pair));
        free(name);
    }
    rd_kafka_AlterConfigs(admin->kafka, &topic, 1, admin->options, admin->queue);
    rd_kafka_ConfigResource_destroy(topic);
    rd_kafka_resp_err_t error = await_answer(admin);
    if (error) {
        return error;
    }
    size_t n;
    const rd_kafka_ConfigResource_t **resources = rd_kafka_AlterConfigs_result_resources(
        rd_kafka_event_AlterConfigs_result(admin->answer), &n);
    return resource_error(admin, resources[0]);
}

static rd_kafka_resp_err_t print_offsets_of(struct admin *admin,
                                            const struct rd_kafka_metadata_topic *topic)
{
    struct {
        int64_t low, high;
    } *marks = calloc((size_t)topic->partition_cnt + 1, sizeof *marks);
    rd_kafka_resp_err_t error = keep(admin, topic->err, NULL);
    for (int i = 0; !error && i < topic->partition_cnt; i++) {
        error =
            rd_kafka_query_watermark_offsets(admin->kafka, topic->topic, topic->partitions[i].id,
                                             &marks[i].low, &marks[i].high, LIMIT_MS);
        keep(admin, error, NULL);
    }
    for (int i = 0; !error && i < topic->partition_cnt; i++) {
        printf("{\"partition\": %d, \"low\": %lld, \"high\": %lld}\n", (int)topic->partitions[i].id,
               (long long)marks[i].low, (long long)marks[i].high);
    }
    free(marks);
    return error;
}

static rd_kafka_resp_err_t print_offsets(struct admin *admin, char **argv)
{
    const struct rd_kafka_metadata *metadata;
    rd_kafka_resp_err_t error = fetch_metadata(admin, argv[0], &metadata);
    if (!error) {
        error = print_offsets_of(admin, &metadata->topics[0]);
        rd_kafka_metadata_destroy(metadata);
    }
    return error;
}

/* argv: topic, partition, offset. */
static rd_kafka_topic_partition_t *add(rd_kafka_topic_partition_list_t *list, char **argv)
{
    rd_kafka_topic_partition_t *added =
        rd_kafka_topic_partition_list_add(list, argv[0], (int32_t)number(argv[1], INT32_MAX));
    added->offset = number(argv[2], INT64_MAX);
    return added;
}

static rd_kafka_resp_err_t first_of_partitions(struct admin *admin,
                                               const rd_kafka_topic_partition_list_t *partitions)
{
    for (int i = 0; i < partitions->cnt; i++) {
        if (partitions->elems[i].err) {
            return keep(admin, partitions->elems[i].err, NULL);
        }
    }
    return 0;
}

static rd_kafka_resp_err_t trim(struct admin *admin, char **argv)
{
    rd_kafka_topic_partition_list_t *before = rd_kafka_topic_partition_list_new(1);
    add(before, argv);
    rd_kafka_DeleteRecords_t *request = rd_kafka_DeleteRecords_new(before);
    rd_kafka_topic_partition_list_destroy(before);
    rd_kafka_DeleteRecords(admin->kafka, &request, 1, admin->options, admin->queue);
    rd_kafka_DeleteRecords_destroy(request);
    rd_kafka_resp_err_t error = await_answer(admin);
    if (error) {
        return error;
    }
    return first_of_partitions(admin, rd_kafka_DeleteRecords_result_offsets(
                                          rd_kafka_event_DeleteRecords_result(admin->answer)));
}

static rd_kafka_resp_err_t group_error(struct admin *admin, const rd_kafka_group_result_t *group)
{
    const rd_kafka_error_t *error = rd_kafka_group_result_error(group);
    if (error) {
        return keep(admin, rd_kafka_error_code(error), rd_kafka_error_string(error));
    }
    return first_of_partitions(admin, rd_kafka_group_result_partitions(group));
}

static void print_commit(const rd_kafka_topic_partition_t *one)
{
    /* The length is Kafka's, and no NUL follows. */
    char *metadata = strndup(one->metadata_size ? one->metadata : "", one->metadata_size);
    putchar('{');
    print_string("topic", one->topic);
    printf(", \"partition\": %d, \"offset\": %lld, ", (int)one->partition, (long long)one->offset);
    print_string("metadata", metadata);
    puts("}");
    free(metadata);
}

static rd_kafka_resp_err_t print_group(struct admin *admin, char **argv)
{
    rd_kafka_ListConsumerGroupOffsets_t *request =
        rd_kafka_ListConsumerGroupOffsets_new(argv[0], NULL);
    rd_kafka_ListConsumerGroupOffsets(admin->kafka, &request, 1, admin->options, admin->queue);
    rd_kafka_ListConsumerGroupOffsets_destroy(request);
    rd_kafka_resp_err_t error = await_answer(admin);
    if (error) {
        return error;
    }
    size_t n;
    const rd_kafka_group_result_t **groups = rd_kafka_ListConsumerGroupOffsets_result_groups(
        rd_kafka_event_ListConsumerGroupOffsets_result(admin->answer), &n);
    error = group_error(admin, groups[0]);
    const rd_kafka_topic_partition_list_t *partitions =
        error ? NULL : rd_kafka_group_result_partitions(groups[0]);
    for (int i = 0; partitions && i < partitions->cnt; i++) {
        print_commit(&partitions->elems[i]);
    }
    return error;
}

static rd_kafka_resp_err_t commit(struct admin *admin, char **argv)
{
    rd_kafka_topic_partition_list_t *offsets = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_t *one = add(offsets, argv + 1);
    one->metadata_size = strlen(argv[4]);
    one->metadata = strdup(argv[4]); /* freed with the list */
    rd_kafka_AlterConsumerGroupOffsets_t *request =
        rd_kafka_AlterConsumerGroupOffsets_new(argv[0], offsets);
    rd_kafka_topic_partition_list_destroy(offsets);
    rd_kafka_AlterConsumerGroupOffsets(admin->kafka, &request, 1, admin->options, admin->queue);
    rd_kafka_AlterConsumerGroupOffsets_destroy(request);
    rd_kafka_resp_err_t error = await_answer(admin);
    if (error) {
        return error;
    }
    size_t n;
    const rd_kafka_group_result_t **groups = rd_kafka_AlterConsumerGroupOffsets_result_groups(
        rd_kafka_event_AlterConsumerGroupOffsets_result(admin->answer), &n);
    return group_error(admin, groups[0]);
}

static rd_kafka_resp_err_t print_version(struct admin *admin, char **argv)
{
    (void)admin, (void)argv;
    printf("{\"version\": \"%s\", \"number\": %d}\n", rd_kafka_version_str(), rd_kafka_version());
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static const struct command {
    const char *name;
    int min_arguments, max_arguments;
    step *run;
} commands[] = {
    {"create", 3, 100, create},
    {"delete", 1, 1, delete_topic},
    {"partitions", 2, 2, add_partitions},
    {"settings", 1, 1, print_settings},
    {"set", 2, 100, set_settings},
    {"offsets", 1, 1, print_offsets},
    {"trim", 3, 3, trim},
    {"group", 1, 1, print_group},
    {"commit", 5, 5, commit},
    {"version", 0, 0, print_version},
};

static const struct command *find_command(const char *name, int n_arguments)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const struct command *c = &commands[i];
        if (!strcmp(c->name, name) && n_arguments >= c->min_arguments &&
            n_arguments <= c->max_arguments) {
            return c;
        }
    }
    die(2, "no command %s with %d arguments", name, n_arguments);
}

static void set_property(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char text[256];
    if (rd_kafka_conf_set(conf, name, value, text, sizeof text)) {
        die(2, "%s", text);
    }
}

/* Takes conf. */
static void open_admin(struct admin *admin, rd_kafka_conf_t *conf)
{
    admin->end = now_s() + LIMIT_S;
    admin->kafka = rd_kafka_new(RD_KAFKA_PRODUCER, conf, admin->text, sizeof admin->text);
    if (!admin->kafka) {
        die(2, "%s", admin->text);
    }
    admin->queue = rd_kafka_queue_new(admin->kafka);
    admin->options = rd_kafka_AdminOptions_new(admin->kafka, RD_KAFKA_ADMIN_OP_ANY);
    rd_kafka_AdminOptions_set_request_timeout(admin->options, LIMIT_MS, NULL, 0);
}

static void close_admin(struct admin *admin)
{
    if (admin->answer) {
        rd_kafka_event_destroy(admin->answer);
    }
    rd_kafka_AdminOptions_destroy(admin->options);
    rd_kafka_queue_destroy(admin->queue);
    rd_kafka_destroy(admin->kafka);
}

int main(int argc, char **argv)
{
    struct admin admin = {0};
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    int option;
    while ((option = getopt(argc, argv, "+X:")) == 'X') {
        char *name = name_of(optarg);
        set_property(conf, name, value_of(optarg));
        free(name);
    }
    if (option != -1 || argc - optind < 2) {
        die(2, "usage: kafka_admin [-X NAME=VALUE]... SERVERS COMMAND ARGUMENT...");
    }
    argv += optind;
    const struct command *command = find_command(argv[1], argc - optind - 2);
    set_property(conf, "bootstrap.servers", argv[0]);
    open_admin(&admin, conf);
    rd_kafka_resp_err_t error = persist(&admin, command->run, argv + 2);
    close_admin(&admin);
    if (error) {
        die(1, "%s", admin.text);
    }
    return 0;
}
