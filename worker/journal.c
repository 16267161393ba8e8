#include "worker/journal.h"
#include "base/buf.h"
#include "base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC 0x314A51474E4547U /* "GENQJ1" and its length */

enum { N_SLOTS = 65536 };
enum slot_state { SLOT_FREE, SLOT_LIVE, SLOT_CRASHED };

/* The file: all integers as the machine has them; it never leaves it. */
struct slot {
    uint64_t topic;
    int64_t offset;
    int32_t partition;
    uint16_t attempt;
    uint8_t crashes;
    uint8_t state;  /* enum slot_state; written last */
    uint64_t check; /* of the above, for half-written slots */
};

struct head {
    uint64_t magic, n_slots, slot_bytes, unused;
};

struct image {
    struct head head;
    struct slot slots[N_SLOTS];
};

/* A job that crashed before, found by its place. */
struct crash {
    struct journal_key key;
    int slot;
    bool is_seen;
};

struct journal {
    struct image *image;
    int *free;
    size_t n_free;
    struct crash *crashes; /* sorted */
    size_t n_crashes;
};

uint64_t journal_topic(const char *namez)
{
    uint64_t h = 0xCBF29CE484222325U; /* FNV-1a */

    for (; *namez; namez++)
        h = (h ^ (unsigned char)*namez) * 0x100000001B3U;
    return h;
}

/* A slot is as it was written, or void. */
static uint64_t check_of(const struct slot *s, uint8_t state)
{
    uint64_t h = s->topic ^ 0x9E3779B97F4A7C15U;

    h = (h ^ (uint64_t)s->offset) * 0xFF51AFD7ED558CCDU;
    h = (h ^ h >> 33 ^ (uint32_t)s->partition) * 0xC4CEB9FE1A85EC53U;
    h = (h ^ h >> 33 ^ s->attempt) * 0xFF51AFD7ED558CCDU;
    return h ^ h >> 33 ^ (uint64_t)s->crashes << 8 ^ state;
}

static void set_state(struct slot *s, enum slot_state state)
{
    s->check = check_of(s, (uint8_t)state);
    __atomic_store_n(&s->state, (uint8_t)state, __ATOMIC_RELEASE);
}

static int by_key(const void *a, const void *b)
{
    const struct journal_key *x = &((const struct crash *)a)->key;
    const struct journal_key *y = &((const struct crash *)b)->key;

    if (x->topic != y->topic)
        return x->topic < y->topic ? -1 : 1;
    if (x->partition != y->partition)
        return x->partition < y->partition ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* A slot that holds anything but nothing becomes a crash; live ones get one more. */
static void take_slot(struct journal *j, int i)
{
    struct slot *s = &j->image->slots[i];

    if (s->state == SLOT_FREE || s->state > SLOT_CRASHED || s->check != check_of(s, s->state)) {
        if (s->state != SLOT_FREE) /* else its page stays clean */
            s->state = SLOT_FREE;
        j->free[j->n_free++] = i;
        return;
    }
    if (s->state == SLOT_LIVE) {
        if (s->crashes < UINT8_MAX)
            s->crashes++;
        set_state(s, SLOT_CRASHED);
    }
    j->crashes[j->n_crashes++] =
        (struct crash){.key = {s->topic, s->offset, s->partition}, .slot = i};
}

/* A new journal's slots are all free, and are not looked at: that would read all of it in. */
static void take_slots(struct journal *j, bool is_new)
{
    int i;

    j->free = xmalloc(N_SLOTS * sizeof j->free[0]);
    j->crashes = xmalloc(N_SLOTS * sizeof j->crashes[0]);
    for (i = N_SLOTS - 1; i >= 0; i--) {
        if (is_new)
            j->free[j->n_free++] = i;
        else
            take_slot(j, i);
    }
    j->crashes = xrealloc(j->crashes, (j->n_crashes + 1) * sizeof j->crashes[0]);
    if (j->n_crashes > 0)
        qsort(j->crashes, j->n_crashes, sizeof j->crashes[0], by_key);
}

static bool is_ours(int fd, off_t size)
{
    struct head h;

    return size == (off_t)sizeof(struct image) && pread(fd, &h, sizeof h, 0) == (ssize_t)sizeof h &&
           h.magic == MAGIC && h.n_slots == N_SLOTS && h.slot_bytes == sizeof(struct slot);
}

/* Makes an empty journal of fd, with its space reserved: a write into a hole of a full disk would
 * be a SIGBUS. */
static int start_anew(int fd, const char *pathz, struct err *e)
{
    struct head h = {MAGIC, N_SLOTS, sizeof(struct slot), 0};
    int rc;

    if (ftruncate(fd, 0) != 0)
        return err_set(e, ERR_IO, "%s: %s", pathz, strerror(errno));
    rc = posix_fallocate(fd, 0, (off_t)sizeof(struct image));
    if (rc != 0)
        return err_set(e, rc == ENOSPC ? ERR_FULL : ERR_IO, "%s: %s", pathz, strerror(rc));
    if (pwrite(fd, &h, sizeof h, 0) != (ssize_t)sizeof h)
        return err_set(e, ERR_IO, "%s: %s", pathz, strerror(errno));
    return 0;
}

static int prepare(int fd, const char *pathz, bool *is_new, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return err_set(e, ERR_IO, "%s: %s", pathz, strerror(errno));
    *is_new = !is_ours(fd, st.st_size);
    if (!*is_new)
        return 0;
    if (st.st_size > 0)
        log_warn("journal_anew", LZ("path", pathz), LZ("why", "damaged or of another version"));
    return start_anew(fd, pathz, e);
}

struct journal *journal_open(const char *pathz, struct err *e)
{
    int fd = open(pathz, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct journal *j = NULL;
    bool is_new;
    void *image;

    if (fd < 0) {
        err_set(e, ERR_IO, "%s: %s", pathz, strerror(errno));
        return NULL;
    }
    if (prepare(fd, pathz, &is_new, e) != 0)
        goto out;
    image = mmap(NULL, sizeof(struct image), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (image == MAP_FAILED) {
        err_set(e, ERR_IO, "%s: %s", pathz, strerror(errno));
        goto out;
    }
    j = xcalloc(1, sizeof *j);
    j->image = image;
    take_slots(j, is_new);
out:
    close(fd);
    return j;
}

void journal_close(struct journal *j)
{
    if (!j)
        return;
    munmap(j->image, sizeof *j->image);
    free(j->free);
    free(j->crashes);
    free(j);
}

static struct crash *find(struct journal *j, const struct journal_key *key)
{
    struct crash wanted = {.key = *key};

    if (j->n_crashes == 0)
        return NULL;
    return bsearch(&wanted, j->crashes, j->n_crashes, sizeof wanted, by_key);
}

/* The slot's crash entry stays until the process ends, but counts only while the slot is its. */
static struct slot *slot_of(struct journal *j, const struct crash *c)
{
    struct slot *s;

    if (!c)
        return NULL;
    s = &j->image->slots[c->slot];
    return s->state != SLOT_FREE && s->topic == c->key.topic && s->offset == c->key.offset &&
                   s->partition == c->key.partition
               ? s
               : NULL;
}

int journal_crashes(struct journal *j, const struct journal_key *key)
{
    struct crash *c = find(j, key);
    struct slot *s = slot_of(j, c);

    if (c)
        c->is_seen = true;
    return s ? s->crashes : 0;
}

int journal_attempts(struct journal *j, const struct journal_key *key)
{
    struct slot *s = slot_of(j, find(j, key));

    return s ? s->attempt : 0;
}

int journal_start(struct journal *j, const struct journal_key *key, int attempt)
{
    struct crash *c = find(j, key);
    struct slot *s = slot_of(j, c);
    int i;

    if (s) {
        i = c->slot;
    } else if (j->n_free > 0) {
        i = j->free[--j->n_free];
        s = &j->image->slots[i];
        s->crashes = 0;
    } else {
        return -1;
    }
    s->state = SLOT_FREE; /* void while it is being written */
    s->topic = key->topic;
    s->offset = key->offset;
    s->partition = key->partition;
    s->attempt = (uint16_t)attempt;
    set_state(s, SLOT_LIVE);
    return i;
}

void journal_clear(struct journal *j, int slot)
{
    if (slot < 0)
        return;
    j->image->slots[slot].state = SLOT_FREE;
    j->free[j->n_free++] = slot;
}

void journal_hand_back(struct journal *j, int slot, int attempts)
{
    struct slot *s = slot < 0 ? NULL : &j->image->slots[slot];

    if (!s)
        return;
    if (s->crashes == 0) {
        journal_clear(j, slot);
        return;
    }
    s->attempt = (uint16_t)attempts;
    set_state(s, SLOT_CRASHED);
}

void journal_forget(struct journal *j, const struct journal_key *key)
{
    struct crash *c = find(j, key);

    if (slot_of(j, c))
        journal_clear(j, c->slot);
}

void journal_forget_unseen(struct journal *j)
{
    size_t i;

    for (i = 0; i < j->n_crashes; i++)
        if (!j->crashes[i].is_seen && slot_of(j, &j->crashes[i]))
            journal_clear(j, j->crashes[i].slot);
}
