#include "event/dead_letter.h"

#include <stdio.h>

#include "base/clock.h"

void dead_letter_write(const struct dead_letter *d, struct writer *w)
{
        char space[64];
        struct buf time = BUF_ON(space);

        /* yyyy-MM-dd'T'HH:mm:ss.SSSSSSSSSxxx, as the published types read it. */
        time_format_micro(&time, d->time);
        if (!time.failed && time.n)
                time.n--; /* the Z */
        buf_text(&time, "000+00:00");
        writer_object(w);
        writer_member_string(w, "timestamp", buf_view(&time));
        writer_key(w, STR("request_context"));
        writer_object(w);
        writer_member_string(w, "request_id", d->request_id);
        writer_member_string(w, "function_urn", d->urn);
        writer_member_text(w, "condition", "UnhandledInvocationError");
        writer_member_int(w, "approximate_invoke_count", d->attempts);
        writer_object_end(w);
        writer_member_string(w, "request_payload", d->payload);
        writer_key(w, STR("response_context"));
        writer_object(w);
        writer_member_int(w, "status_code", d->status);
        writer_member_string(w, "function_error", d->reason);
        writer_object_end(w);
        writer_member_string(w, "response_payload", d->answer);
        if (d->truncated) {
                writer_member_bool(w, "truncated", true);
                writer_member_int(w, "request_payload_size", (int64_t)d->payload_n);
                writer_member_int(w, "response_payload_size", (int64_t)d->answer_n);
        }
        writer_object_end(w);
}

size_t dead_letter_extensions(const struct dead_letter *d, struct buf *space,
                              struct cloud_extension out[DEAD_LETTER_EXTENSIONS])
{
        struct str data = d->answer.n ? d->answer : d->reason;
        size_t n = 0, code;

        if (!buf_reserve(space, 64))
                return 0;
        code = space->n;
        buf_int(space, d->status);
        out[n++] = (struct cloud_extension){ "knativeerrordest", d->sink };
        out[n++] = (struct cloud_extension){ "knativeerrorcode", { space->p + code, space->n - code } };
        if (data.n)
                out[n++] = (struct cloud_extension){ "knativeerrordata",
                                                     text_clip(data, DEAD_LETTER_DATA_MAX) };
        if (d->truncated) {
                size_t size = space->n;

                buf_int(space, (int64_t)d->payload_n);
                out[n++] = (struct cloud_extension){ "sluicetruncated", STR("true") };
                out[n++] = (struct cloud_extension){ "sluicedatasize", { space->p + size, space->n - size } };
        }
        return n;
}
