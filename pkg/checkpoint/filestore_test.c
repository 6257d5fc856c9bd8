#include "checkpoint/filestore.h"

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- a store on a real loop, in a folder of its own --------------------- */

enum { REQUESTS = 4096 };
struct user {
        struct task wake;
        struct file_store_end *end;
        struct store store;
        struct list done;
        struct store_request requests[REQUESTS]; /* each is used once */
        struct store_request *taken[REQUESTS];
        size_t used, taken_n, wanted;
};

static struct loop *loop;
static char folder[64], journal[128];
static struct file_store *store;
static bool overdue;
static struct task watchdog;

static void too_late(struct task *t UNUSED, usec now UNUSED)
{
        overdue = true;
        loop_stop(loop);
}

static void user_turn(struct task *t, usec now UNUSED)
{
        struct user *u = CONTAINER_OF(t, struct user, wake);

        for (struct request *r; (r = request_next(&u->done));)
                u->taken[u->taken_n++] = CONTAINER_OF(r, struct store_request, request);
        if (u->taken_n >= u->wanted)
                loop_stop(loop);
}

static struct store_request *next_request(struct user *u)
{
        struct store_request *r = &u->requests[u->used++];

        assert_true(u->used < REQUESTS);
        r->request.wake = &u->wake;
        r->request.done = &u->done;
        return r;
}

static void begin_put(struct user *u, struct str key, struct str value)
{
        store_put(&u->store, next_request(u), key, value);
}

static void wait_for(struct user *u, size_t n)
{
        u->wanted = u->taken_n + n;
        loop_arm(loop, &watchdog, clock_monotonic(&system_clock) + 20 * USEC_SEC);
        loop_run(loop);
        loop_forget(loop, &watchdog);
        assert_false(overdue);
}

static void open_store(void)
{
        struct error err;

        if (file_store_new(&store, loop, folder, &err) < 0)
                fail_msg("%s", err.text);
}

static struct user *user_new(const char *prefix)
{
        struct user *u = calloc(1, sizeof(*u));
        struct error err;

        assert_non_null(u);
        u->wake.turn = user_turn;
        assert_int_equal(file_store_end_new(&u->end, store, str_of(prefix), &err), 0);
        u->store = file_store_port(u->end);
        return u;
}

static void user_free(struct user *u)
{
        for (size_t i = 0; i < u->used; i++)
                store_release(&u->store, &u->requests[i]);
        u->end = file_store_end_free(u->end);
        loop_forget(loop, &u->wake);
        free(u);
}

static void put(struct user *u, const char *key, const char *value)
{
        begin_put(u, str_of(key), str_of(value));
        wait_for(u, 1);
        assert_false(request_failed(&u->taken[u->taken_n - 1]->request));
}

/* NULL: not there. */
static const char *get(struct user *u, const char *key)
{
        struct store_request *r = next_request(u);

        store_get(&u->store, r, str_of(key));
        wait_for(u, 1);
        assert_ptr_equal(u->taken[u->taken_n - 1], r);
        assert_false(request_failed(&r->request));
        return r->found ? buf_view(&r->value).p : NULL;
}

static int setup(void **state UNUSED)
{
        struct error err;

        overdue = false;
        watchdog = (struct task){ .turn = too_late };
        (void)snprintf(folder, sizeof(folder), "/tmp/sluice-store-XXXXXX");
        if (!mkdtemp(folder))
                return -1;
        (void)snprintf(journal, sizeof(journal), "%s/checkpoints.journal", folder);
        return loop_new(&loop, &err);
}

static int remove_one(const char *path, const struct stat *s UNUSED, int kind UNUSED, struct FTW *w UNUSED)
{
        return remove(path);
}

static int teardown(void **state UNUSED)
{
        loop = loop_free(loop);
        return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static off_t journal_size(void)
{
        struct stat s;

        return stat(journal, &s) == 0 ? s.st_size : -1;
}

static off_t size_of(const char *name)
{
        char path[300];
        struct stat s;

        (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
        return stat(path, &s) == 0 ? s.st_size : -1;
}

/* ---- tests -------------------------------------------------------------- */

static void what_is_put_is_got_also_after_reopening(void **state UNUSED)
{
        struct user *u;

        open_store();
        u = user_new("a");
        assert_null(get(u, "timer"));
        put(u, "timer", "one");
        assert_string_equal(get(u, "timer"), "one");
        put(u, "timer", "two");
        put(u, "empty", "");
        user_free(u);
        store = file_store_free(store);
        open_store();
        u = user_new("a");
        assert_string_equal(get(u, "timer"), "two");
        assert_string_equal(get(u, "empty"), "");
        assert_null(get(u, "other"));
        user_free(u);
        store = file_store_free(store);
        assert_null(file_store_free(NULL));
}

static void prefixes_keep_apart(void **state UNUSED)
{
        struct user *a, *b, *ab;

        open_store();
        a = user_new("a");
        b = user_new("b");
        ab = user_new("a/b");
        put(a, "timer", "of a");
        assert_null(get(b, "timer"));
        put(a, "b/timer", "of a, too");
        assert_null(get(ab, "timer"));
        put(ab, "timer", "of a/b");
        assert_string_equal(get(a, "b/timer"), "of a, too");
        user_free(a);
        user_free(b);
        user_free(ab);
        store = file_store_free(store);
}

static void completions_keep_their_order(void **state UNUSED)
{
        enum { PUTS = 2000 };
        struct user *u;

        open_store();
        u = user_new("a");
        for (uint64_t i = 0; i < PUTS; i++) {
                char value[32];

                (void)snprintf(value, sizeof(value), "%llu", (unsigned long long)i);
                begin_put(u, STR("key"), str_of(value));
        }
        wait_for(u, PUTS);
        for (uint64_t i = 0; i < PUTS; i++) {
                assert_ptr_equal(u->taken[i], &u->requests[i]);
                assert_false(request_failed(&u->taken[i]->request));
        }
        assert_string_equal(get(u, "key"), "1999");
        user_free(u);
        store = file_store_free(store);
}

static struct user *crowd;

/* As the timers of one boundary do, each in its turn. */
static void put_a_hundred(struct task *t UNUSED, usec now UNUSED)
{
        for (int i = 0; i < 100; i++) {
                char key[16];

                (void)snprintf(key, sizeof(key), "k%d", i);
                begin_put(crowd, str_of(key), STR("v"));
        }
}

static void all_of_a_pass_are_one_group(void **state UNUSED)
{
        struct task puts = { .turn = put_a_hundred };

        open_store();
        crowd = user_new("t");
        loop_ready(loop, &puts);
        /* The first that is done ends the wait: all the others are done as well. */
        wait_for(crowd, 1);
        assert_int_equal(crowd->taken_n, 100);
        user_free(crowd);
        store = file_store_free(store);
}

static void what_was_queued_is_written_at_the_end(void **state UNUSED)
{
        struct user *u;

        open_store();
        u = user_new("a");
        begin_put(u, STR("x"), STR("1"));
        begin_put(u, STR("x"), STR("2"));
        store_get(&u->store, next_request(u), STR("x"));
        user_free(u); /* nobody waits any more */
        store = file_store_free(store);
        open_store();
        u = user_new("a");
        assert_string_equal(get(u, "x"), "2");
        user_free(u);
        store = file_store_free(store);
}

/* Cuts the journal at each length: what was whole is there, the rest is cut off and can be written again. */
static void a_torn_end_is_cut_off(void **state UNUSED)
{
        struct user *u;
        off_t first, whole;

        open_store();
        u = user_new("a");
        put(u, "k", "first");
        first = journal_size();
        put(u, "k", "second");
        whole = journal_size();
        assert_true(whole > first);
        user_free(u);
        store = file_store_free(store);
        for (off_t size = whole - 1; size >= first; size--) {
                assert_int_equal(truncate(journal, size), 0);
                open_store();
                assert_int_equal(journal_size(), first);
                u = user_new("a");
                assert_string_equal(get(u, "k"), "first");
                user_free(u);
                store = file_store_free(store);
        }
        open_store();
        u = user_new("a");
        put(u, "k", "third");
        user_free(u);
        store = file_store_free(store);
        open_store();
        u = user_new("a");
        assert_string_equal(get(u, "k"), "third");
        user_free(u);
        store = file_store_free(store);
}

static void a_torn_end_is_reported(void **state UNUSED)
{
        char said[1024] = "";
        int ends[2], kept, fd = open(journal, O_WRONLY | O_CREAT, 0600);
        ssize_t n;

        assert_int_equal(write(fd, "SLC1 torn", 9), 9);
        (void)close(fd);
        assert_int_equal(pipe(ends), 0);
        kept = dup(STDERR_FILENO);
        assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
        open_store();
        assert_true(dup2(kept, STDERR_FILENO) >= 0);
        (void)close(kept);
        (void)close(ends[1]);
        n = read(ends[0], said, sizeof(said) - 1);
        (void)close(ends[0]);
        assert_true(n > 0);
        assert_non_null(strstr(said, "broken frame"));
        assert_non_null(strstr(said, "bytes=9"));
        assert_non_null(strstr(said, journal));
        assert_int_equal(journal_size(), 0);
        assert_int_equal(size_of("checkpoints.journal.damaged.1"), 9);
        store = file_store_free(store);
}

/* Each byte of a frame, turned over: the checksum or the magic finds it. */
static void a_changed_byte_is_found(void **state UNUSED)
{
        struct user *u;
        off_t first, whole;

        open_store();
        u = user_new("a");
        put(u, "k", "first");
        first = journal_size();
        put(u, "k", "second");
        whole = journal_size();
        user_free(u);
        store = file_store_free(store);
        for (off_t at = first; at < whole; at++) {
                int fd = open(journal, O_RDWR);
                char frame[256], c;

                assert_int_equal(pread(fd, frame, (size_t)(whole - first), first), whole - first);
                c = (char)~frame[at - first];
                assert_int_equal(pwrite(fd, &c, 1, at), 1);
                open_store();
                u = user_new("a");
                assert_string_equal(get(u, "k"), "first");
                user_free(u);
                store = file_store_free(store);
                assert_int_equal(journal_size(), first);
                assert_int_equal(pwrite(fd, frame, (size_t)(whole - first), first), whole - first);
                (void)close(fd);
        }
}

/* Puts the journal back as it was, with bytes of it changed. */
static void write_journal(const char *bytes, size_t n, size_t at, size_t span, int how)
{
        FREE_AT_END char *copy = malloc(n);
        int fd = open(journal, O_WRONLY | O_CREAT | O_TRUNC, 0600);

        assert_non_null(copy);
        memcpy(copy, bytes, n);
        for (size_t i = at; i < at + span; i++)
                copy[i] = how < 0 ? 0 : (char)(copy[i] ^ 1 << how);
        assert_int_equal(write(fd, copy, n), (ssize_t)n);
        (void)close(fd);
}

/* The first of three frames, each byte of it with each bit turned over: the others hold, before and after the
 * next start. */
static void a_spoilt_frame_takes_no_other_with_it(void **state UNUSED)
{
        char bytes[512];
        size_t first, n;
        struct user *u;
        int fd;

        open_store();
        u = user_new("a");
        put(u, "k", "{\"lost\":1}");
        first = (size_t)journal_size();
        put(u, "l", "{\"kept\":2}");
        user_free(u);
        u = user_new("b");
        put(u, "k", "{\"kept\":3}");
        user_free(u);
        store = file_store_free(store);
        n = (size_t)journal_size();
        fd = open(journal, O_RDONLY);
        assert_int_equal(read(fd, bytes, sizeof(bytes)), (ssize_t)n);
        (void)close(fd);
        for (size_t at = 0; at < first; at++)
                for (int bit = 0; bit < 8; bit++) {
                        write_journal(bytes, n, at, 1, bit);
                        for (int start = 0; start < 2; start++) {
                                open_store();
                                u = user_new("a");
                                assert_null(get(u, "k"));
                                assert_string_equal(get(u, "l"), "{\"kept\":2}");
                                user_free(u);
                                u = user_new("b");
                                assert_string_equal(get(u, "k"), "{\"kept\":3}");
                                user_free(u);
                                store = file_store_free(store);
                                assert_int_equal(journal_size(), (off_t)(n - first));
                        }
                }
        assert_int_equal(size_of("checkpoints.journal.damaged.1"), (off_t)n); /* nothing is thrown away */
}

static void zeros_in_the_middle_are_skipped(void **state UNUSED)
{
        char bytes[512];
        size_t first, second, n;
        struct user *u;
        int fd;

        open_store();
        u = user_new("a");
        put(u, "k", "1");
        first = (size_t)journal_size();
        put(u, "k", "2");
        put(u, "l", "2");
        second = (size_t)journal_size();
        put(u, "m", "3");
        user_free(u);
        store = file_store_free(store);
        n = (size_t)journal_size();
        fd = open(journal, O_RDONLY);
        assert_int_equal(read(fd, bytes, sizeof(bytes)), (ssize_t)n);
        (void)close(fd);
        write_journal(bytes, n, first + 5, second - first - 10, -1);
        open_store();
        u = user_new("a");
        assert_string_equal(get(u, "k"), "1"); /* an older one: sent again rather than lost */
        assert_null(get(u, "l"));
        assert_string_equal(get(u, "m"), "3");
        put(u, "l", "4");
        user_free(u);
        store = file_store_free(store);
        open_store();
        u = user_new("a");
        assert_string_equal(get(u, "k"), "1");
        assert_string_equal(get(u, "l"), "4");
        assert_string_equal(get(u, "m"), "3");
        user_free(u);
        store = file_store_free(store);
        assert_int_equal(size_of("checkpoints.journal.damaged.1"), (off_t)n);
        assert_int_equal(size_of("checkpoints.journal.damaged.2"), -1);
}

static void a_stale_journal_is_rewritten(void **state UNUSED)
{
        enum { VALUE = 3000, PUTS = 1000 };
        FREE_AT_END char *value = malloc(VALUE + 1);
        struct user *u;

        memset(value, 'v', VALUE);
        value[VALUE] = 0;
        open_store();
        u = user_new("a");
        put(u, "kept", "since the beginning");
        for (int i = 0; i < PUTS; i++)
                begin_put(u, STR("busy"), (struct str){ value, VALUE });
        wait_for(u, PUTS);
        put(u, "busy", "last");
        assert_true(journal_size() < 10000);
        put(u, "after", "the rewrite");
        user_free(u);
        store = file_store_free(store);
        open_store();
        u = user_new("a");
        assert_string_equal(get(u, "kept"), "since the beginning");
        assert_string_equal(get(u, "busy"), "last");
        assert_string_equal(get(u, "after"), "the rewrite");
        user_free(u);
        store = file_store_free(store);
}

static void a_value_too_large_is_refused_and_harms_nothing(void **state UNUSED)
{
        size_t n = (1 << 20) + 1;
        FREE_AT_END char *large = calloc(1, n);
        struct user *u;

        open_store();
        u = user_new("a");
        put(u, "k", "old");
        begin_put(u, STR("k"), (struct str){ large, n });
        wait_for(u, 1);
        assert_int_equal(u->taken[u->taken_n - 1]->request.error.kind, ERROR_INVALID);
        assert_string_equal(get(u, "k"), "old");
        user_free(u);
        store = file_store_free(store);
        open_store();
        u = user_new("a");
        assert_string_equal(get(u, "k"), "old");
        user_free(u);
        store = file_store_free(store);
}

static void a_second_process_is_refused(void **state UNUSED)
{
        struct file_store *second = NULL;
        struct error err = { 0 };
        int status;
        pid_t child;

        open_store();
        assert_int_equal(file_store_new(&second, loop, folder, &err), -1);
        assert_int_equal(err.kind, ERROR_CONFLICT);
        assert_non_null(strstr(err.text, folder));
        child = fork();
        if (child == 0) {
                char path[128];
                int fd;

                /* What a process of its own would see: it has inherited no lock by the store's descriptor,
                 * which is closed on exec. */
                (void)snprintf(path, sizeof(path), "%s/lock", folder);
                fd = open(path, O_RDWR);
                _exit(fd >= 0 && file_store_new(&second, loop, folder, &err) < 0 && err.kind == ERROR_CONFLICT
                              ? 0
                              : 1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        store = file_store_free(store);
        open_store(); /* free again */
        store = file_store_free(store);
}

static void folders_are_made(void **state UNUSED)
{
        char deep[128];
        struct error err = { 0 };
        struct stat s;

        (void)snprintf(deep, sizeof(deep), "%s/one/two", folder);
        assert_int_equal(file_store_new(&store, loop, deep, &err), 0);
        store = file_store_free(store);
        assert_int_equal(stat(deep, &s), 0);
        assert_int_equal(s.st_mode & 0777, 0700);
        (void)snprintf(deep, sizeof(deep), "%s/lock/not-a-folder", folder);
        assert_int_equal(file_store_new(&store, loop, folder, &err), 0);
        store = file_store_free(store);
        assert_int_equal(file_store_new(&store, loop, deep, &err), -1);
        assert_non_null(strstr(err.text, "/lock"));
}

static void only_files_are_a_journal(void **state UNUSED)
{
        static const char *const names[] = { "checkpoints.journal", "lock" };
        struct error err;

        (void)alarm(20);
        (void)mkdir(folder, 0700);
        for (size_t i = 0; i < COUNT_OF(names); i++)
                for (int device = 0; device < 2; device++) {
                        char path[128];

                        (void)snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
                        (void)unlink(path);
                        assert_int_equal(device ? symlink("/dev/zero", path) : mkfifo(path, 0600), 0);
                        assert_int_equal(file_store_new(&store, loop, folder, &err), -1);
                        assert_non_null(strstr(err.text, "it is no regular file"));
                        assert_int_equal(unlink(path), 0);
                }
        open_store();
        (void)alarm(0);
        store = file_store_free(store);
}

/* ---- a folder that is deleted under it ----------------------------------- */

static void remove_folder(void) { assert_int_equal(nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0); }

static void is_refused_to_others(void)
{
        struct file_store *second = NULL;
        struct error err;

        assert_int_equal(file_store_new(&second, loop, folder, &err), -1);
        assert_int_equal(err.kind, ERROR_CONFLICT);
}

/* The store is opened anew: what a process finds that is started later. */
static void check_kept(const char *key, const char *value)
{
        struct user *u;

        store = file_store_free(store);
        open_store();
        u = user_new("a");
        assert_string_equal(get(u, key), value);
        user_free(u);
}

static void a_put_makes_a_deleted_folder_again(void **state UNUSED)
{
        struct user *u;

        open_store();
        u = user_new("a");
        put(u, "before", "1");
        remove_folder();
        put(u, "after", "2");
        is_refused_to_others();
        user_free(u);
        check_kept("before", "1");
        check_kept("after", "2");
        store = file_store_free(store);
}

static struct task looking;

static void look_for_journal(struct task *t, usec now)
{
        if (journal_size() > 0 && size_of("lock") >= 0)
                loop_stop(loop);
        else
                loop_arm(loop, t, now + 10 * USEC_MSEC);
}

static void wait_for_journal(void)
{
        looking = (struct task){ .turn = look_for_journal };
        loop_ready(loop, &looking);
        loop_arm(loop, &watchdog, clock_monotonic(&system_clock) + 20 * USEC_SEC);
        loop_run(loop);
        loop_forget(loop, &watchdog);
        loop_forget(loop, &looking);
        assert_false(overdue);
}

/* What was put long ago, too, though nothing is put any more. */
static void a_deleted_folder_is_made_again_without_a_put(void **state UNUSED)
{
        struct user *u;

        open_store();
        u = user_new("a");
        put(u, "k", "1");
        remove_folder();
        wait_for_journal();
        is_refused_to_others();
        (void)unlink(journal);
        wait_for_journal();
        user_free(u);
        check_kept("k", "1");
        store = file_store_free(store);
}

static void what_is_deleted_before_the_end_is_written_at_the_end(void **state UNUSED)
{
        struct user *u;

        open_store();
        u = user_new("a");
        put(u, "k", "1");
        user_free(u);
        remove_folder();
        check_kept("k", "1");
        store = file_store_free(store);
}

static void a_deleted_lock_still_keeps_others_out(void **state UNUSED)
{
        struct user *u;
        char lock[128];

        open_store();
        u = user_new("a");
        (void)snprintf(lock, sizeof(lock), "%s/lock", folder);
        assert_int_equal(unlink(lock), 0);
        put(u, "k", "1");
        is_refused_to_others();
        user_free(u);
        store = file_store_free(store);
}

/* One put of each key; what comes of it. */
static const struct request *try_put(struct user *u, const char *key, const char *value)
{
        begin_put(u, str_of(key), str_of(value));
        wait_for(u, 1);
        return &u->taken[u->taken_n - 1]->request;
}

static void a_folder_that_another_took_meanwhile_is_not_written(void **state UNUSED)
{
        struct file_store *first;
        struct user *u, *other;
        const struct request *r;

        open_store();
        u = user_new("a");
        put(u, "shared", "ours");
        put(u, "own", "1");
        first = store;
        remove_folder();
        open_store(); /* as another process */
        other = user_new("a");
        put(other, "shared", "theirs");
        r = try_put(u, "own", "2");
        assert_true(request_failed(r));
        assert_int_equal(r->error.kind, ERROR_CONFLICT);
        assert_non_null(strstr(r->error.text, "is in use by another process"));
        user_free(other);
        store = file_store_free(store);
        put(u, "own", "3");
        assert_string_equal(get(u, "shared"), "theirs");
        user_free(u);
        store = first;
        check_kept("shared", "theirs");
        check_kept("own", "3");
        store = file_store_free(store);
}

static void a_folder_that_cannot_be_made_is_said_and_tried_again(void **state UNUSED)
{
        struct user *u;
        const struct request *r;
        int file;

        open_store();
        u = user_new("a");
        put(u, "k", "1");
        remove_folder();
        file = open(folder, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        assert_true(file >= 0);
        (void)close(file);
        for (int i = 0; i < 2; i++) {
                r = try_put(u, "other", "2");
                assert_true(request_failed(r));
                assert_non_null(strstr(r->error.text, "the folder of positions was deleted or replaced: "));
                assert_non_null(strstr(r->error.text, folder));
        }
        assert_int_equal(unlink(folder), 0);
        put(u, "other", "3");
        user_free(u);
        check_kept("k", "1");
        check_kept("other", "3");
        store = file_store_free(store);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(what_is_put_is_got_also_after_reopening, setup, teardown),
                cmocka_unit_test_setup_teardown(prefixes_keep_apart, setup, teardown),
                cmocka_unit_test_setup_teardown(completions_keep_their_order, setup, teardown),
                cmocka_unit_test_setup_teardown(all_of_a_pass_are_one_group, setup, teardown),
                cmocka_unit_test_setup_teardown(what_was_queued_is_written_at_the_end, setup, teardown),
                cmocka_unit_test_setup_teardown(a_torn_end_is_cut_off, setup, teardown),
                cmocka_unit_test_setup_teardown(a_torn_end_is_reported, setup, teardown),
                cmocka_unit_test_setup_teardown(a_changed_byte_is_found, setup, teardown),
                cmocka_unit_test_setup_teardown(a_spoilt_frame_takes_no_other_with_it, setup, teardown),
                cmocka_unit_test_setup_teardown(zeros_in_the_middle_are_skipped, setup, teardown),
                cmocka_unit_test_setup_teardown(a_stale_journal_is_rewritten, setup, teardown),
                cmocka_unit_test_setup_teardown(a_value_too_large_is_refused_and_harms_nothing, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(a_second_process_is_refused, setup, teardown),
                cmocka_unit_test_setup_teardown(folders_are_made, setup, teardown),
                cmocka_unit_test_setup_teardown(only_files_are_a_journal, setup, teardown),
                cmocka_unit_test_setup_teardown(a_put_makes_a_deleted_folder_again, setup, teardown),
                cmocka_unit_test_setup_teardown(a_deleted_folder_is_made_again_without_a_put, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(what_is_deleted_before_the_end_is_written_at_the_end, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(a_deleted_lock_still_keeps_others_out, setup, teardown),
                cmocka_unit_test_setup_teardown(a_folder_that_another_took_meanwhile_is_not_written, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(a_folder_that_cannot_be_made_is_said_and_tried_again, setup,
                                                teardown),
        };
        return cmocka_run_group_tests_name("filestore", tests, NULL, NULL);
}
