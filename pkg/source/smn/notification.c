#include "source/smn/notification.h"

#include "base/clock.h"
#include "json/check.h"
#include "json/scan.h"

bool notification_kind_of(struct str type, enum notification_kind *kind, bool *newer)
{
        static const struct {
                const char *type;
                enum notification_kind kind;
                bool newer;
        } types[] = {
                { "Notification", NOTIFICATION_MESSAGE, false },
                { "SubscriptionConfirmation", NOTIFICATION_CONFIRM, false },
                { "UnsubscribeConfirmation", NOTIFICATION_UNSUBSCRIBED, false },
                { "HttpSubscriptionUserConfirm", NOTIFICATION_CONFIRM, true },
                { "HttpSubscriptionUserUnsubscribe", NOTIFICATION_UNSUBSCRIBED, true },
        };

        for (size_t i = 0; i < COUNT_OF(types); i++)
                if (str_is(type, types[i].type)) {
                        *kind = types[i].kind;
                        if (newer)
                                *newer = types[i].newer;
                        return true;
                }
        return false;
}

bool notification_urn(struct str urn, struct str *region, struct str *project, struct str *name)
{
        struct str rest = urn, scheme = str_cut(&rest, ':'), service = str_cut(&rest, ':');

        *region = str_cut(&rest, ':');
        *project = str_cut(&rest, ':');
        *name = rest;
        return str_is(scheme, "urn") && str_is(service, "smn") && region->n && project->n && name->n &&
               !memchr(name->p, ':', name->n);
}

/* ---- the body ----------------------------------------------------------- */

/* "2017-11-15T04:02:24Z", nothing else. */
static bool parse_time(struct str s, usec *out)
{
        return s.n == 20 && s.p[10] == 'T' && s.p[19] == 'Z' && time_parse(s, out);
}

/* One line of printable ASCII without spaces: nothing that could pass for another line of what is signed. */
static bool is_word(struct str s, size_t most)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] <= ' ' || s.p[i] > '~')
                        return false;
        return s.n > 0 && s.n <= most;
}

/* What is signed holds each name and value on lines of its own, and values may have several. That can be read
 * in one way only as long as the last line that says message_id is the name: then what stands before is the
 * message, and what follows is the id and the subject. */
static bool has_line(struct str text, const char *line)
{
        while (text.n)
                if (str_is(str_cut(&text, '\n'), line))
                        return true;
        return false;
}

static const char *check_members(struct notification *n)
{
        if (!notification_kind_of(n->type, &n->kind, NULL))
                return "type is missing, or none that SMN documents";
        if (!is_word(n->message_id, 128) || str_is(n->message_id, "message_id"))
                return "message_id is missing or malformed";
        if (!is_word(n->topic_urn, 512))
                return "topic_urn is missing or malformed";
        if (!n->message.p)
                return "message is missing";
        if (!parse_time(n->timestamp, &n->time))
                return "timestamp is missing or malformed";
        if (n->subject.n > 512 || has_line(n->subject, "message_id"))
                return "subject is malformed";
        if (!is_word(n->signing_cert_url, 1024))
                return "signing_cert_url is missing or malformed";
        if (!is_word(n->signature, 2048))
                return "signature is missing or malformed";
        if (n->kind != NOTIFICATION_MESSAGE && !is_word(n->subscribe_url, 4096))
                return "subscribe_url is missing or malformed";
        return NULL;
}

/* A member that is kept: as it is written, and where its text belongs. */
struct member {
        const char *name;
        struct str *value, raw;
        bool written, escaped;
};

static struct member *member_of(struct member *list, size_t n, struct str raw, bool escaped)
{
        BUF_AT_END struct buf name = BUF_INIT(256);

        if (escaped) {
                (void)scan_decode(raw, &name);
                raw = buf_view(&name);
        }
        for (size_t i = 0; !name.failed && i < n; i++)
                if (str_is(raw, list[i].name))
                        return &list[i];
        return NULL;
}

/* Finds the members without building anything of what else the body holds. What is no string counts as
 * absent. */
static const char *find_members(struct str body, struct member *list, size_t n)
{
        struct scan s;
        struct str raw;
        bool escaped;

        scan_init(&s, body);
        if (!str_is_utf8(body) || !scan_take(&s, '{'))
                return "the body is no JSON object";
        if (!scan_take(&s, '}'))
                do {
                        struct member *m;

                        if (!scan_name(&s, &raw, &escaped))
                                return "the body is no JSON object";
                        m = member_of(list, n, raw, escaped);
                        if (m && m->written)
                                return "the body says one thing twice";
                        if (m)
                                m->written = true;
                        if (m && scan_peek(&s) == '"' ? !scan_string(&s, &m->raw, &m->escaped)
                                                      : !scan_skip(&s, SCAN_ANY_DEPTH))
                                return "the body is no JSON object";
                } while (scan_more(&s, '}'));
        return s.fault || scan_peek(&s) || s.p != s.end ? "the body is no JSON object" : NULL;
}

static const char NO_MEMORY[] = "out of memory";

static const char *keep_members(struct notification *n, const struct member *list, size_t members)
{
        size_t room = 1;

        for (size_t i = 0; i < members; i++)
                room += list[i].raw.n;
        n->text = BUF_INIT(room);
        if (!buf_reserve(&n->text, room - 1)) /* once, so that the views stay where they are */
                return NO_MEMORY;
        for (size_t i = 0; i < members; i++) {
                size_t from = n->text.n;

                if (!list[i].raw.p)
                        continue;
                if (!scan_decode(list[i].raw, &n->text) || memchr(n->text.p + from, 0, n->text.n - from))
                        return "the body holds text that is none";
                *list[i].value = (struct str){ n->text.p + from, n->text.n - from };
        }
        return NULL;
}

int notification_parse(struct str body, struct notification *out, const char **why)
{
        struct notification n = { 0 };
        struct member list[] = {
                { .name = "type", .value = &n.type },
                { .name = "message_id", .value = &n.message_id },
                { .name = "topic_urn", .value = &n.topic_urn },
                { .name = "message", .value = &n.message },
                { .name = "subject", .value = &n.subject },
                { .name = "timestamp", .value = &n.timestamp },
                { .name = "subscribe_url", .value = &n.subscribe_url },
                { .name = "signing_cert_url", .value = &n.signing_cert_url },
                { .name = "signature", .value = &n.signature },
                { .name = "signature_version", .value = &n.signature_version },
        };

        *why = find_members(json_without_mark(body), list, COUNT_OF(list));
        if (!*why)
                *why = keep_members(&n, list, COUNT_OF(list));
        if (!*why)
                *why = check_members(&n);
        if (*why) {
                notification_done(&n);
                *why = *why == NO_MEMORY ? NULL : *why;
                return -1;
        }
        *out = n;
        return 0;
}

void notification_done(struct notification *n)
{
        buf_done(&n->text);
        *n = (struct notification){ 0 };
}

/* ---- the signature ------------------------------------------------------ */

static void line(struct buf *b, const char *name, struct str value)
{
        buf_text(b, name);
        buf_char(b, '\n');
        buf_str(b, value);
        buf_char(b, '\n');
}

void notification_signed(const struct notification *n, struct buf *b)
{
        line(b, "message", n->message);
        line(b, "message_id", n->message_id);
        if (n->kind != NOTIFICATION_MESSAGE)
                line(b, "subscribe_url", n->subscribe_url);
        else if (n->subject.n)
                line(b, "subject", n->subject);
        line(b, "timestamp", n->timestamp);
        line(b, "topic_urn", n->topic_urn);
        line(b, "type", n->type);
}

int notification_verify(const struct notification *n, EVP_PKEY *key)
{
        BUF_AT_END struct buf text = BUF_INIT(2 * NOTIFICATION_BODY_MOST), signature = BUF_INIT(4096);
        EVP_MD_CTX *context;
        bool right;

        if (!str_is(n->signature_version, "v1") || EVP_PKEY_get_base_id(key) != EVP_PKEY_RSA)
                return 0;
        if (!buf_unbase64(&signature, n->signature))
                return signature.failed && n->signature.n < signature.max ? -1 : 0;
        notification_signed(n, &text);
        context = EVP_MD_CTX_new();
        if (!context || text.failed || signature.failed) {
                EVP_MD_CTX_free(context);
                return -1;
        }
        right = EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
                EVP_DigestVerify(context, (const unsigned char *)signature.p, signature.n,
                                 (const unsigned char *)text.p, text.n) == 1;
        EVP_MD_CTX_free(context);
        return right;
}
