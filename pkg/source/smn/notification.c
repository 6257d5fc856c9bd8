#include "source/smn/notification.h"

#include "base/clock.h"
#include "json/value.h"

bool notification_kind_of(struct str type, enum notification_kind *kind, bool *newer)
{
        static const struct { const char *type; enum notification_kind kind; bool newer; } types[] = {
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
        return str_is(scheme, "urn") && str_is(service, "smn") && region->n && project->n && name->n && !memchr(name->p, ':', name->n);
}

/* ---- the body ---------------------------------------------------------------------------------------------------------------------------- */

/* "2017-11-15T04:02:24Z", nothing else. */
static bool parse_time(struct str s, usec *out) { return s.n == 20 && s.p[10] == 'T' && s.p[19] == 'Z' && time_parse(s, out); }

/* One line of printable ASCII without spaces: nothing that could pass for another line of what is signed. */
static bool is_word(struct str s, size_t most)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] <= ' ' || s.p[i] > '~')
                        return false;
        return s.n > 0 && s.n <= most;
}

/* What is signed holds each name and value on lines of its own, and values may have several. That can be read in one way only as long as the last line
 * that says message_id is the name: then what stands before is the message, and what follows is the id and the subject. */
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

int notification_parse(struct str body, struct notification *out, const char **why)
{
        json_error_t at;
        json_t *root = json_loadb(body.p, body.n, JSON_REJECT_DUPLICATES, &at);
        struct notification n = { .document = root };

        if (!json_is_object(root)) {
                json_decref(root);
                *why = "the body is no JSON object";
                return -1;
        }
        n.type = json_member(root, "type");
        n.message_id = json_member(root, "message_id");
        n.topic_urn = json_member(root, "topic_urn");
        n.message = json_member(root, "message");
        n.subject = json_member(root, "subject");
        n.timestamp = json_member(root, "timestamp");
        n.subscribe_url = json_member(root, "subscribe_url");
        n.signing_cert_url = json_member(root, "signing_cert_url");
        n.signature = json_member(root, "signature");
        n.signature_version = json_member(root, "signature_version");
        *why = check_members(&n);
        if (*why) {
                notification_done(&n);
                return -1;
        }
        *out = n;
        return 0;
}

void notification_done(struct notification *n)
{
        json_decref(n->document);
        *n = (struct notification){ 0 };
}

/* ---- the signature ------------------------------------------------------------------------------------------------------------------------ */

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

bool notification_verify(const struct notification *n, EVP_PKEY *key)
{
        BUF_AT_END struct buf text = BUF_INIT(2 * NOTIFICATION_BODY_MOST), signature = BUF_INIT(4096);
        EVP_MD_CTX *context;
        bool right;

        if (!str_is(n->signature_version, "v1") || EVP_PKEY_get_base_id(key) != EVP_PKEY_RSA || !buf_unbase64(&signature, n->signature))
                return false;
        notification_signed(n, &text);
        context = EVP_MD_CTX_new();
        right = context && !text.failed && !signature.failed && EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
                EVP_DigestVerify(context, (const unsigned char *)signature.p, signature.n, (const unsigned char *)text.p, text.n) == 1;
        EVP_MD_CTX_free(context);
        return right;
}
