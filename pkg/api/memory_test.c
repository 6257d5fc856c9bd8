/* Reading a Trigger survives the failure of any allocation: nothing crashes or leaks, and what is taken for
 * valid is complete. */
#include <dlfcn.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include "api/trigger.h"

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_MALLOC 0
#elif defined(__has_feature)
#define OWN_MALLOC !(__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define OWN_MALLOC 1
#endif

static long until_failure = -1; /* allocations that still succeed; -1: all */
static bool sticky;             /* after the first failure all fail */
static bool happened;
static bool spared UNUSED;
static long live; /* allocations not freed yet */

#if OWN_MALLOC
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void __libc_free(void *);

static bool fails(void)
{
        if (until_failure < 0 || spared)
                return false;
        if (until_failure > 0) {
                until_failure--;
                return false;
        }
        happened = true;
        until_failure = sticky ? 0 : -1;
        return true;
}

/* glibc 2.36 frees twice when its regcomp runs out of memory, which is not ours to survive. */
int regcomp(regex_t *re, const char *pattern, int flags)
{
        int (*real)(regex_t *, const char *, int);
        int result;

        spared = true;
        *(void **)&real = dlsym(RTLD_NEXT, "regcomp");
        result = real(re, pattern, flags);
        spared = false;
        return result;
}

static void *counted(void *p)
{
        live += p != NULL;
        return p;
}

void *malloc(size_t n) { return fails() ? NULL : counted(__libc_malloc(n)); }
void *calloc(size_t n, size_t size) { return fails() ? NULL : counted(__libc_calloc(n, size)); }
void *realloc(void *p, size_t n)
{
        if (fails())
                return NULL;
        return p ? __libc_realloc(p, n) : counted(__libc_malloc(n));
}

void free(void *p)
{
        live -= p != NULL;
        __libc_free(p);
}
#endif

struct made {
        char *name;
        struct strings tags;
        int64_t size;
};

static const struct field made_fields[] = {
        FIELD(STRING, "name", struct made, name, .required = true, .min = 1, .max = 9, .pattern = "^[a-z]+$"),
        FIELD(STRINGS, "tags", struct made, tags, .max = 9, .pattern = "^[a-z]+$"),
        FIELD(INT, "size", struct made, size, .fallback = "3", .min = 1, .max = 9),
};
static const struct type made_type = TYPE("Made", struct made, made_fields, "A source.");
static const struct source_type types[] = { { .name = "made", .type = &made_type } };

static const char valid[] = "{\"apiVersion\": \"sluice.dev/v1alpha1\", \"kind\": \"Trigger\", \"metadata\": "
                            "{\"name\": \"a\", \"labels\": {\"a\": \"\\ud83d\\ude00\"}},\n"
                            " \"spec\": {\"source\": {\"made\": {\"name\": \"x\", \"tags\": [a, b]}}, "
                            "\"sink\": {\"uri\": \"http://f/\"},\n"
                            "  \"delivery\": {\"timeout\": \"5s\"}, \"worker\": {\"labels\": {\"a\": \"b\"}, "
                            "\"resources\": {\"a\": [1, 2]}}}}\n";
static const char broken[] =
        "apiVersion: sluice.dev/v1alpha1\nkind: Trigger\nmetadata: {name: A, lables: 1}\nspec:\n  source: "
        "{made: {name: 5, name: 6}}\n"
        "  sink: &x {}\n  delivery: {maxInFlight: 0, timeout: 5, ordering: no}\n  worker: [\n";

/* The Trigger written again; NULL: it was not taken for valid. */
static char *read_and_write(const char *text)
{
        struct documents docs;
        struct problems problems = { 0 };
        struct buf out = BUF_INIT(1 << 20), report = BUF_INIT(1 << 20);
        struct trigger *t = NULL;
        bool fine = yaml_parse(&docs, str_of(text), &problems) == 0;

        if (docs.n)
                t = trigger_decode(docs.roots[0], types, COUNT_OF(types), &problems);
        if (t) {
                struct writer w;

                writer_init(&w, &out);
                trigger_write(t, &w);
        }
        fine = fine && t && !out.failed;
        problems_format(&problems, "f", &report);
        problems_done(&problems);
        (void)trigger_free(t);
        documents_done(&docs);
        buf_done(&report);
        if (fine)
                return buf_take(&out);
        buf_done(&out);
        return NULL;
}

/* false: there was no such allocation. */
static bool try_without(long allocation, const char *expected)
{
        char *written, *nothing;
        long before = live;

        happened = false;
        until_failure = allocation;
        written = read_and_write(valid);
        until_failure = happened ? allocation : -1;
        nothing = read_and_write(broken);
        until_failure = -1;
        if (written && strcmp(written, expected) != 0)
                fail_msg("without allocation %ld: %s", allocation, written);
        assert_null(nothing);
        free(written);
        schema_forget_patterns();
        if (live != before)
                fail_msg("without allocation %ld: %ld leaked", allocation, live - before);
        return happened;
}

static void each_allocation_may_fail(void **state UNUSED)
{
        FREE_AT_END char *expected = read_and_write(valid), *nothing = read_and_write(broken);
        long n = 0;

        assert_non_null(expected);
        assert_null(nothing);
        schema_forget_patterns();
        for (int mode = 0; mode < 2; mode++) {
                sticky = mode == 1;
                for (n = 0; try_without(n, expected); n++)
                        ;
        }
        assert_true(n > 100 || !OWN_MALLOC); /* a sanitizer brings its own: then nothing fails */
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(each_allocation_may_fail) };

        return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
