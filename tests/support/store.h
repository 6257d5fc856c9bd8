/* For tests: a store of one key. With a loop each request is done at once; without one they wait in order
 * until the test answers them. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "port/store.h"

enum { TEST_STORE_VALUE = 512, TEST_STORE_WAITING = 64 };
struct test_store {
        const char *key;   /* the only one that may be asked for; NULL: any */
        struct loop *loop; /* NULL: requests wait */
        char value[TEST_STORE_VALUE];
        bool found;
        unsigned fail; /* so many of the next puts */
        bool foreign;  /* somebody else writes: each put is made, and fails */
        size_t puts;
        struct {
                struct store_request *request;
                bool is_get;
                char value[TEST_STORE_VALUE];
        } waiting[TEST_STORE_WAITING];
        size_t waiting_n;
};

static inline void test_store_set(struct test_store *s, const char *value) /* NULL: there is none */
{
        s->found = value != NULL;
        (void)snprintf(s->value, sizeof(s->value), "%s", value ? value : "");
}

/* Answers the oldest request that waits; ERROR_NONE: it succeeds. */
static inline void test_store_answer(struct test_store *s, enum error_kind kind)
{
        struct store_request *r = s->waiting[0].request;

        assert_true(s->waiting_n > 0);
        if (kind)
                (void)error_set(&r->request.error, kind, "the store said no");
        else if (s->waiting[0].is_get) {
                r->found = s->found;
                r->value.max = sizeof(s->value);
                buf_reset(&r->value);
                buf_text(&r->value, s->value);
        } else
                test_store_set(s, s->waiting[0].value);
        memmove(s->waiting, s->waiting + 1, --s->waiting_n * sizeof(*s->waiting));
        request_end(&r->request, s->loop);
}

static inline void test_store_take(struct test_store *s, struct store_request *r, struct str key, bool is_get,
                                   struct str value)
{
        assert_true(!s->key || str_is(key, s->key));
        assert_true(s->waiting_n < TEST_STORE_WAITING);
        s->waiting[s->waiting_n].request = r;
        s->waiting[s->waiting_n].is_get = is_get;
        (void)snprintf(s->waiting[s->waiting_n].value, TEST_STORE_VALUE, STR_FMT, STR_ARG(value));
        s->waiting_n++;
}

static inline void test_store_get(void *cookie, struct store_request *r, struct str key)
{
        struct test_store *s = cookie;

        test_store_take(s, r, key, true, (struct str){ "", 0 });
        if (s->loop)
                test_store_answer(s, ERROR_NONE);
}

static inline void test_store_put(void *cookie, struct store_request *r, struct str key, struct str value)
{
        struct test_store *s = cookie;

        test_store_take(s, r, key, false, value);
        s->puts++;
        if (!s->loop)
                return;
        if (s->foreign)
                test_store_set(s, s->waiting[0].value);
        test_store_answer(s, s->foreign ? ERROR_CONFLICT : s->fail ? ERROR_UNREACHABLE : ERROR_NONE);
        s->fail -= s->fail > 0;
}

static inline void test_store_cancel(void *cookie, struct store_request *r)
{
        struct test_store *s = cookie;

        for (size_t i = 0; i < s->waiting_n; i++)
                if (s->waiting[i].request == r) {
                        memmove(s->waiting + i, s->waiting + i + 1,
                                (--s->waiting_n - i) * sizeof(*s->waiting));
                        return;
                }
        fail_msg("it is not busy");
}

static inline struct store test_store_port(struct test_store *s)
{
        static const struct store_ops ops = { test_store_get, test_store_put, test_store_cancel };

        return (struct store){ .ops = &ops, .cookie = s };
}
