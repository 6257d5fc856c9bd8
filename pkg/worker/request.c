#include "worker/request.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "json/scan.h"
#include "json/yaml.h"

/* Limit for building a CloudEvent: a record may be a CloudEvent as large as a request. */
enum { RECORD_IDS_MOST = 2400, SPACE_KEPT = 65536, KEY_KEPT = 1024, SPACE_MOST = 96 << 20 };

void request_maker_init(struct request_maker *m, const struct trigger *t, const struct shape *shape,
                        const struct clock *clock, const char *sink)
{
        *m = (struct request_maker){ .trigger = t,
                                     .shape = shape,
                                     .clock = clock,
                                     .sink = sink,
                                     .seed = random_seed(),
                                     .space = BUF_INIT(SPACE_MOST) };
        random_init(&m->random, random_seed());
}

void request_maker_done(struct request_maker *m) { buf_done(&m->space); }

static bool is_functiongraph(const struct request_maker *m)
{
        return m->trigger->event->format == FORMAT_FUNCTION_GRAPH;
}

/* ---- headers ------------------------------------------------------------ */

static void header(struct buf *b, const char *name, const char *value)
{
        if (value && str_is_header_value(str_of(value)))
                buf_printf(b, "%s: %s\r\n", name, value);
}

void request_constant_headers(const struct request_maker *m, struct buf *b)
{
        const struct trigger *t = m->trigger;

        /* The headers by which FunctionGraph tells a container function about itself. */
        header(b, "X-CFF-Func-Name", t->function->name);
        header(b, "X-CFF-Func-Version", t->function->version);
        header(b, "X-CFF-Package", t->function->package);
        header(b, "X-CFF-Project-Id", t->function->project);
        header(b, "X-CFF-Region", t->event->region);
        if (is_functiongraph(m))
                buf_printf(b, "X-CFF-Timeout: %" PRId64 "\r\n", t->delivery->timeout / USEC_SEC);
        for (size_t i = 0; i < t->delivery->headers.n; i++) {
                const struct header_spec *h = t->delivery->headers.list[i];

                header(b, h->name, h->value);
        }
}

static bool header_can_hold(unsigned char c) { return c > 0x20 && c < 0x7f && c != ','; }

/* Percent-encodes what a header can't contain. */
static void header_id(struct buf *b, struct str id)
{
        for (size_t i = 0, from = 0; i <= id.n; i++) {
                if (i < id.n && header_can_hold((unsigned char)id.p[i]))
                        continue;
                buf_add(b, id.p + from, i - from);
                if (i < id.n)
                        buf_printf(b, "%%%02X", (unsigned char)id.p[i]);
                from = i + 1;
        }
}

static void event_id(struct record *const *records, size_t n, struct buf *b)
{
        header_id(b, records[0]->id);
        if (n > 1) {
                buf_text(b, "..");
                header_id(b, records[n - 1]->id);
        }
}

/* The longest that servers accept in a header. */
static void record_ids(struct record *const *records, size_t n, struct buf *b)
{
        size_t from = b->n;

        if (n == 1)
                return;
        buf_text(b, "X-Sluice-Record-Ids: ");
        for (size_t i = 0; i < n && b->n - from <= RECORD_IDS_MOST; i++) {
                if (i)
                        buf_char(b, ',');
                header_id(b, records[i]->id);
        }
        if (b->n - from > RECORD_IDS_MOST)
                b->n = from;
        else
                buf_text(b, "\r\n");
}

/* Each id is hashed separately, so that the boundaries between them count, and so does their number. */
static uint64_t hash_of(uint64_t seed, struct record *const *records, size_t n)
{
        uint64_t h = hash_bytes(seed, records[0]->id), count = n;

        if (n == 1)
                return h;
        for (size_t i = 1; i < n; i++)
                h = hash_bytes(h, records[i]->id);
        return hash_bytes(h, (struct str){ (const char *)&count, sizeof(count) });
}

/* The value of X-CFF-Request-Id: the same for each attempt. */
static void request_id(struct record *const *records, size_t n, struct buf *b)
{
        uint64_t high = hash_of(0x736c75696365, records, n),
                 low = n == 1 ? hash_of(0x72657175657374, records, n)
                              : hash_bytes(0x72657175657374,
                                           (struct str){ (const char *)&high, sizeof(high) });

        /* A UUID of version 8: its bits are a hash of the event's id. */
        buf_hex(b, high >> 32, 8);
        buf_char(b, '-');
        buf_hex(b, high >> 16, 4);
        buf_text(b, "-8");
        buf_hex(b, high, 3);
        buf_char(b, '-');
        buf_hex(b, 0x8000 | (low >> 48 & 0x3fff), 4);
        buf_char(b, '-');
        buf_hex(b, low, 12);
}

static bool hex_word(struct str s, size_t from, size_t n)
{
        bool any = false;

        for (size_t i = from; i < from + n; i++) {
                char c = s.p[i];

                if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
                        return false;
                any = any || c != '0';
        }
        return any;
}

/* W3C trace context: version 00, ids that are not all zero. */
static bool is_traceparent(struct str s)
{
        return s.n == 55 && memcmp(s.p, "00-", 3) == 0 && hex_word(s, 3, 32) && s.p[35] == '-' &&
               hex_word(s, 36, 16) && s.p[52] == '-' &&
               (hex_word(s, 53, 2) || memcmp(s.p + 53, "00", 2) == 0);
}

/* Continues the record's trace with a span of our own. Without one a new trace begins, the same for each
 * attempt. */
static void trace_context(struct request_maker *m, struct record *const *records, size_t n, struct buf *b)
{
        struct str parent = { 0 }, state = { 0 };
        uint64_t span = random_next(&m->random) | 1;

        if (n == 1 && m->shape->header) {
                parent = m->shape->header(records[0], "traceparent");
                state = m->shape->header(records[0], "tracestate");
        }
        if (is_traceparent(parent)) {
                buf_printf(b, "traceparent: 00-%.32s-%016" PRIx64 "-%.2s\r\n", parent.p + 3, span,
                           parent.p + 53);
                if (state.n && state.n <= 512 && str_is_header_value(state)) {
                        buf_text(b, "tracestate: ");
                        buf_str(b, state);
                        buf_text(b, "\r\n");
                }
                return;
        }
        buf_text(b, "traceparent: 00-");
        buf_hex(b, hash_of(m->seed, records, n) | 1, 16);
        buf_hex(b, hash_of(~m->seed, records, n), 16);
        buf_char(b, '-');
        buf_hex(b, span, 16);
        buf_text(b, "-01\r\n");
}

static void cloud_event(struct request_maker *m, const struct record *r, struct cloud_event *e)
{
        if (m->space.cap > SPACE_KEPT)
                buf_done(&m->space);
        buf_reset(&m->space);
        m->shape->event(m->trigger, r, &m->space, e);
        e->type = e->type.n ? e->type : str_of(m->shape->ce_type);
        e->overrides = m->trigger->ce_overrides ? &m->trigger->ce_overrides->extensions : NULL;
}

void request_headers(struct request_maker *m, struct record *const *records, size_t n, struct buf *b)
{
        struct cloud_event e;

        switch ((enum event_format)m->trigger->event->format) {
        case FORMAT_FUNCTION_GRAPH:
                buf_text(b, "Content-Type: application/json\r\nX-CFF-Request-Id: ");
                request_id(records, n, b);
                buf_text(b, "\r\n");
                break;
        case FORMAT_CLOUDEVENTS_BINARY:
                cloud_event(m, records[0], &e);
                cloudevent_headers(&e, NULL, 0, b);
                buf_fail_as(b, &m->space);
                break;
        case FORMAT_CLOUDEVENTS_STRUCTURED:
                buf_text(b, "Content-Type: application/cloudevents+json; charset=UTF-8\r\n");
                break;
        case FORMAT_CLOUDEVENTS_BATCH:
                buf_text(b, "Content-Type: application/cloudevents-batch+json; charset=UTF-8\r\n");
                break;
        }
        buf_text(b, "X-Sluice-Event-Id: ");
        event_id(records, n, b);
        buf_text(b, "\r\n");
        record_ids(records, n, b);
        trace_context(m, records, n, b);
}

/* ---- bodies ------------------------------------------------------------- */

void request_body(struct request_maker *m, struct record *const *records, size_t n, struct buf *body)
{
        struct cloud_event e;
        struct writer w;

        writer_init(&w, body);
        switch ((enum event_format)m->trigger->event->format) {
        case FORMAT_FUNCTION_GRAPH: m->shape->encode(m->trigger, records, n, &w); return;
        case FORMAT_CLOUDEVENTS_BINARY:
                cloud_event(m, records[0], &e);
                if (e.data.p)
                        buf_str(body, e.data);
                buf_fail_as(body, &m->space);
                return;
        case FORMAT_CLOUDEVENTS_STRUCTURED:
                cloud_event(m, records[0], &e);
                cloudevent_write(&e, NULL, 0, &w);
                buf_fail_as(body, &m->space);
                return;
        case FORMAT_CLOUDEVENTS_BATCH:
                writer_array(&w);
                for (size_t i = 0; i < n; i++) {
                        cloud_event(m, records[i], &e);
                        cloudevent_write(&e, NULL, 0, &w);
                        buf_fail_as(body, &m->space);
                }
                writer_array_end(&w);
                return;
        }
}

/* ---- dead letters ------------------------------------------------------- */

static void write_letter(struct request_maker *m, struct record *r, const struct dead_letter *d,
                         struct str payload, struct buf *body)
{
        BUF_AT_END struct buf code = BUF_INIT(128);
        struct cloud_extension more[DEAD_LETTER_EXTENSIONS];
        struct cloud_event e;
        struct writer w;
        size_t n;

        writer_init(&w, body);
        if (is_functiongraph(m)) {
                struct dead_letter own = *d;

                own.payload = payload;
                dead_letter_write(&own, &w);
                return;
        }
        n = dead_letter_extensions(d, &code, more);
        cloud_event(m, r, &e);
        if (d->truncated) { /* the beginning of a JSON text is not JSON */
                cloudevent_data(&e, (struct str){ e.data.p, MIN_OF(e.data.n, payload.n) },
                                str_is_utf8(text_clip(e.data, payload.n)) ? STR("text/plain; charset=utf-8")
                                                                          : STR("application/octet-stream"));
                if (!e.bytes)
                        e.data = text_clip(e.data, payload.n);
                if (e.key.n > KEY_KEPT)
                        e.key = (struct str){ 0 };
        }
        if (d->truncated && payload.n == 0)
                e.own_n = 0;
        cloudevent_write(&e, more, n, &w);
        buf_fail_as(body, &m->space);
        buf_fail_as(body, &code);
}

/* Cuts the payload, then the function's answer, until the letter fits. Each round cuts the excess, or half.
 */
static void cut_letter(struct request_maker *m, struct record *r, struct dead_letter *d, struct str payload,
                       size_t most, struct buf *body)
{
        size_t from = body->n;

        for (;;) {
                struct str *cut = payload.n ? &payload : &d->answer;
                size_t size, over;

                body->n = from;
                body->failed = body->full = false;
                write_letter(m, r, d, payload, body);
                size = body->n - from;
                if ((!body->failed && size <= most) || (d->truncated && payload.n + d->answer.n == 0))
                        return;
                over = body->failed ? cut->n : size - most;
                if (!d->truncated) {
                        d->truncated = true;
                        d->payload_n = payload.n;
                        d->answer_n = d->answer.n;
                        over += 160; /* for the members that say it was cut */
                }
                over = cut->n > 2 * over ? cut->n - over : cut->n / 2;
                *cut = cut->p ? text_clip(*cut, over) : (struct str){ NULL, over };
        }
}

void request_dead_body(struct request_maker *m, struct record *r, struct dead_letter *d, struct str payload,
                       size_t most, struct buf *body)
{
        char space[64];
        struct buf id = BUF_ON(space);
        struct cloud_event e;

        request_id(&r, 1, &id);
        d->time = clock_wall(m->clock);
        d->id = r->id;
        d->request_id = buf_view(&id);
        d->urn = str_of(m->trigger->function->urn);
        d->sink = str_of(m->sink);
        if (!is_functiongraph(m)) {
                cloud_event(m, r, &e);
                /* only its length: the data is made again at each writing */
                payload = (struct str){ NULL, e.data.n };
        }
        cut_letter(m, r, d, payload, most ? most : SIZE_MAX, body);
}

void request_dead_headers(struct request_maker *m, struct record *r, struct buf *b)
{
        buf_printf(b, "Content-Type: %s\r\nX-Sluice-Event-Id: ",
                   is_functiongraph(m) ? "application/json" : "application/cloudevents+json; charset=UTF-8");
        header_id(b, r->id);
        buf_text(b, "\r\n");
}

/* ---- partial answers ---------------------------------------------------- */

/* The batch's records sorted by id, so that a long list takes n log n. */
struct place {
        struct str id;
        uint32_t at;
};
struct failures {
        struct place *places;
        size_t n;
        uint32_t *failed; /* by place: an enum named */
        struct buf text;
        bool wrong, ended;
};

/* How an item names a record. Several records may have one id (equal messages of a queue have): it names all
 * of them, since nothing tells which of them failed. */
enum named { NAMED_NOT, NAMED_BY_PLACE, NAMED_BY_ID };

static int compare_places(const void *a_, const void *b_)
{
        const struct place *a = a_, *b = b_;
        int order = memcmp(a->id.p, b->id.p, MIN_OF(a->id.n, b->id.n));

        if (order || a->id.n != b->id.n)
                return order ? order : a->id.n < b->id.n ? -1 : 1;
        return (a->at > b->at) - (a->at < b->at);
}

/* Of several records with the id, the first. */
static enum named place_of_text(const struct failures *f, struct str text, size_t *place)
{
        size_t low = 0, high = f->n;
        int64_t index;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (compare_places(&f->places[middle], &(struct place){ text, 0 }) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        if (text.n && low < f->n && str_equal(f->places[low].id, text)) {
                *place = f->places[low].at;
                return NAMED_BY_ID;
        }
        if (!str_to_int64(text, &index) || index < 0 || (uint64_t)index >= f->n)
                return NAMED_NOT;
        *place = (size_t)index;
        return NAMED_BY_PLACE;
}

/* Once for the whole list, however often it names an id. */
static void name_equals(const struct failures *f)
{
        bool all = false;

        for (size_t i = 0; i < f->n; i++) {
                uint32_t *failed = &f->failed[f->places[i].at];

                all = *failed == NAMED_BY_ID || (all && str_equal(f->places[i].id, f->places[i - 1].id));
                if (all)
                        *failed = NAMED_BY_ID;
        }
}

/* The string without its escapes; valid until the next one. */
static struct str plain_text(struct failures *f, struct str raw, bool escaped)
{
        if (!escaped)
                return raw;
        buf_reset(&f->text);
        (void)scan_decode(raw, &f->text);
        return buf_view(&f->text);
}

/* Reads the value of an itemIdentifier. */
static bool read_identifier(struct failures *f, struct scan *s, enum named *named, size_t *place)
{
        bool escaped, text = scan_peek(s) == '"';
        struct str raw;

        *named = NAMED_NOT;
        if (!text && scan_peek(s) != '-' && (scan_peek(s) < '0' || scan_peek(s) > '9'))
                return scan_skip(s, SCAN_ANY_DEPTH);
        if (text ? !scan_string(s, &raw, &escaped) : !scan_number(s, &raw))
                return false;
        *named = place_of_text(f, plain_text(f, raw, text && escaped), place);
        return true;
}

static bool read_item(struct failures *f, struct scan *s)
{
        enum named named = NAMED_NOT;
        size_t place = 0;

        if (scan_peek(s) != '{') {
                f->wrong = true;
                return scan_skip(s, SCAN_ANY_DEPTH);
        }
        s->p++;
        if (!scan_take(s, '}')) {
                do {
                        struct str name;
                        bool escaped;

                        if (!scan_name(s, &name, &escaped))
                                return false;
                        name = plain_text(f, name, escaped);
                        if (!(str_is(name, "itemIdentifier") ? read_identifier(f, s, &named, &place)
                                                             : scan_skip(s, SCAN_ANY_DEPTH)))
                                return false;
                } while (scan_more(s, '}'));
        }
        if (named)
                f->failed[place] = MAX_OF(f->failed[place], (uint32_t)named);
        f->wrong = f->wrong || !named;
        return !s->fault;
}

static bool read_list(struct failures *f, struct scan *s)
{
        if (scan_peek(s) != '[') {
                f->wrong = f->wrong || scan_peek(s) != 'n';
                return scan_skip(s, SCAN_ANY_DEPTH);
        }
        s->p++;
        if (!scan_take(s, ']')) {
                do {
                        if (!read_item(f, s))
                                return false;
                } while (scan_more(s, ']'));
        }
        f->ended = !s->fault;
        return f->ended;
}

/* false: it is no JSON object, or not complete. */
static bool read_failures(struct failures *f, struct str answer)
{
        struct scan s;

        scan_init(&s, answer);
        if (!scan_take(&s, '{'))
                return false;
        if (!scan_take(&s, '}')) {
                do {
                        struct str name;
                        bool escaped;

                        if (!scan_name(&s, &name, &escaped))
                                return false;
                        name = plain_text(f, name, escaped);
                        if (!(str_is(name, "batchItemFailures") ? read_list(f, &s)
                                                                : scan_skip(&s, SCAN_ANY_DEPTH)))
                                return false;
                } while (scan_more(&s, '}'));
        }
        return !s.fault && scan_peek(&s) == '\0' && s.p == s.end;
}

static size_t all_failed(bool *all, struct buf *why, const char *text)
{
        *all = true;
        buf_text(why, text);
        return 0;
}

size_t request_failures(struct str answer, bool cut, struct record *const *records, size_t n,
                        uint32_t *failed, bool *all, struct buf *why)
{
        struct failures f = {
                .places = calloc(n, sizeof(struct place)), .n = n, .failed = failed, .text = BUF_INIT(1 << 20)
        };
        struct str trimmed = str_trim(answer);
        size_t count = 0;
        bool whole;

        *all = false;
        if (trimmed.n == 0 || str_is(trimmed, "null")) {
                free(f.places);
                return 0;
        }
        if (!f.places)
                return all_failed(all, why, "out of memory for the list of failures");
        for (uint32_t i = 0; i < n; i++)
                f.places[i] = (struct place){ records[i]->id, i };
        qsort(f.places, n, sizeof(*f.places), compare_places);
        memset(failed, 0, n * sizeof(*failed));
        whole = read_failures(&f, trimmed);
        name_equals(&f);
        free(f.places);
        buf_done(&f.text);
        if (!whole && cut && !f.ended)
                return all_failed(
                        all, why,
                        "the answer is no JSON object, or its batchItemFailures has more than 8 MiB");
        if (!whole && !cut)
                return all_failed(all, why, "the answer is no JSON object, as partialFailures wants it");
        if (f.wrong)
                return all_failed(all, why,
                                  "batchItemFailures names no record of the batch: each item needs an "
                                  "itemIdentifier, a record's id or its place from 0");
        for (size_t i = 0; i < n; i++)
                if (failed[i])
                        failed[count++] = (uint32_t)i;
        return count;
}
