/* Requests, whole and in pieces: what comes of bytes must not depend on how they were cut, what is served
 * must be what it says, and behind a refusal nothing is. */
#include "fuzz/demand.h"
#include "http/server/intake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct http_limits limits = {
        .target_max = 1000, .header_max = 1000, .head_max = 4096, .body_max = 1000, .headers_max = 20
};

static void check(const struct http_message *m, bool version_1_0)
{
        struct str target = buf_view(&m->target), host = http_message_header(m, STR("host"));

        DEMAND(target.n && (target.p[0] == '/' || (str_is(target, "*") && m->method == HTTP_OPTIONS)));
        DEMAND(version_1_0 || host.n);
        DEMAND(m->body.n <= limits.body_max && !m->body_cut && m->complete);
        DEMAND(!http_message_header(m, STR("transfer-encoding")).n ||
               !http_message_header(m, STR("content-length")).n);
        for (size_t i = 0; i < target.n; i++)
                DEMAND(target.p[i] > ' ' && target.p[i] < 0x7f);
}

static void tell(const struct http_message *m, struct buf *out)
{
        buf_printf(out, "%d %d ", m->method, m->keep_alive);
        buf_str(out, buf_view(&m->target));
        buf_char(out, 0);
        buf_str(out, buf_view(&m->head));
        buf_char(out, 0);
        buf_str(out, buf_view(&m->body));
        buf_char(out, 0);
}

static void take(struct str bytes, size_t piece, struct buf *out)
{
        BUF_AT_END struct buf in = BUF_INIT((size_t)1 << 24);
        struct http_intake k;
        size_t used;
        bool open = true;

        http_intake_init(&k, &limits);
        while (open && bytes.n) {
                size_t n = MIN_OF(piece, bytes.n);

                buf_add(&in, bytes.p, n);
                bytes = (struct str){ bytes.p + n, bytes.n - n };
                do {
                        if (http_intake_feed(&k, buf_view(&in), &used) < 0) {
                                DEMAND(k.why && http_refusal_status(k.refusal) >= 400);
                                DEMAND(http_intake_feed(&k, buf_view(&in), &used) < 0);
                                buf_printf(out, "refused %d", http_refusal_status(k.refusal));
                                open = false;
                                break;
                        }
                        DEMAND(used <= in.n);
                        buf_drop(&in, used);
                        if (!http_intake_complete(&k))
                                continue;
                        check(&k.codec.message, k.version_1_0);
                        tell(&k.codec.message, out);
                        open = k.codec.message.keep_alive;
                        http_intake_next(&k);
                } while (open && used && in.n);
                DEMAND(!open || in.n <= limits.head_max);
        }
        http_intake_done(&k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        BUF_AT_END struct buf whole = BUF_INIT((size_t)1 << 24), cut = BUF_INIT((size_t)1 << 24);
        struct str bytes = { (const char *)data, size };

        if (!size)
                return 0;
        take(bytes, SIZE_MAX, &whole);
        take(bytes, 1 + size % 13, &cut);
        DEMAND(str_equal(buf_view(&whole), buf_view(&cut)));
        return 0;
}
