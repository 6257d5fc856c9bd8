/* What an authorizer or IAM answers: it is allowed with a context that is a JSON object, refused, or nothing
 * to go by with a reason. */
#include "json/check.h"
#include "source/apig/apig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static usec now(void *cookie) { return *(usec *)cookie; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static usec at = 1767225600 * USEC_SEC; /* 2026 */
        static const struct clock clock = { .wall = now, .monotonic = now, .cookie = &at };
        static const struct services services = { .clock = &clock };
        static char user[] = "user", project[] = "p1", *projects[] = { project };
        static struct apig_authorizer authorizer = { .principal = user };
        static struct apig_iam iam = { .projects = { projects, 1 } };
        static struct apig_asker asker = { .services = &services, .authorizer = &authorizer, .iam = &iam };
        const struct judge_kind *kind = size && data[0] % 2 ? &apig_authorizer_kind : &apig_iam_kind;
        struct http_request c = { .status = 200 };
        BUF_AT_END struct buf why = BUF_INIT(1024);
        struct verdict *v;

        if (!size)
                return 0;
        c.body = (struct str){ (const char *)data + 1, size - 1 };
        v = kind->read(&asker, &c, at, &why);
        if (v ? v->holders != 1 || !v->lasting || v->until <= at || v->allowed != !v->refusal.status
              : why.n == 0)
                abort();
        if (v && v->context_n && !json_is_value((struct str){ v->context, v->context_n }, NULL))
                abort();
        if (v && !v->allowed && (v->context_n || v->refusal.status < 401 || v->refusal.status > 403))
                abort();
        (void)verdict_release(v);
        return 0;
}
