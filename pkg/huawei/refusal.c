#include "huawei/refusal.h"

#include <jansson.h>
#include <stdio.h>

#include "json/tree.h"

/* A service's error is small; a larger answer comes from something else. */
enum { BODY_MOST = 256 << 10 };

#define NO_RIGHT "the key has no right to do this: add it to its user's or agency's policy"
#define ARREARS "the account is frozen or in arrears: settle that in the console"
#define KEY "the access key is unknown, revoked, expired or does not fit the secret key"

/* Every code in the services' references; other codes are judged by their status. */
const struct refusal_row refusal_rows[] = {
        /* Distributed Message Service, API Reference, "Error Code" */
        ROW("dms", "10240002", CLOUD_FINAL, NULL),
        ROW("dms", "10240004", CLOUD_FINAL, NULL),
        ROW("dms", "10240005", CLOUD_FINAL, "check the project id"),
        ROW("dms", "10240007", CLOUD_FINAL, NULL),
        ROW("dms", "10240009", CLOUD_FINAL, NULL),
        ROW("dms", "10240010", CLOUD_FINAL, NULL),
        ROW("dms", "10240011", CLOUD_FINAL, NULL),
        ROW("dms", "10240012", CLOUD_FINAL, NULL),
        ROW("dms", "10240013", CLOUD_FINAL, NULL),
        ROW("dms", "10240014", CLOUD_FINAL, NULL),
        ROW("dms", "10240015", CLOUD_GONE, "check the queue's id"),
        ROW("dms", "10240016", CLOUD_GONE, "check the consumer group's id"),
        ROW("dms", "10240017", CLOUD_FINAL, NULL),
        ROW("dms", "10240018", CLOUD_FINAL, NULL),
        ROW("dms", "10240019", CLOUD_FINAL, "a queue has three consumer groups at most"),
        ROW("dms", "10240020", CLOUD_FINAL, "raise the quota, or delete what is not needed"),
        ROW("dms", "10240021", CLOUD_FINAL, NULL),
        ROW("dms", "10240022", CLOUD_FINAL, NULL),
        ROW("dms", "10240027", CLOUD_FINAL, NULL),
        ROW("dms", "10240028", CLOUD_FINAL, NULL),
        ROW("dms", "10240032", CLOUD_RETRY, NULL),
        ROW("dms", "10240035", CLOUD_FINAL, NULL),
        ROW("dms", "10240036", CLOUD_FINAL, NULL),
        ROW("dms", "10240038", CLOUD_FINAL, NULL),
        ROW("dms", "10240039", CLOUD_FINAL, NULL),
        ROW("dms", "10240040", CLOUD_FINAL, NULL),
        ROW("dms", "10240041", CLOUD_FINAL, NULL),
        ROW("dms", "10240042", CLOUD_FINAL, NULL),
        ROW("dms", "10240043", CLOUD_FINAL, NULL),
        ROW("dms", "10240044", CLOUD_FINAL, NULL),
        ROW("dms", "10240045", CLOUD_FINAL, NULL),
        ROW("dms", "10240101", CLOUD_RENEW_CREDENTIALS, KEY),
        ROW("dms", "10240102", CLOUD_RENEW_CREDENTIALS, KEY),
        ROW("dms", "10240103", CLOUD_RENEW_CREDENTIALS, KEY),
        ROW("dms", "10240104", CLOUD_FORBIDDEN, "the key is not of this project: check the project id"),
        ROW("dms", "10240304", CLOUD_FINAL, NULL),
        ROW("dms", "10240306", CLOUD_FORBIDDEN, ARREARS),
        ROW("dms", "10240308", CLOUD_FINAL, NULL),
        ROW("dms", "10240309", CLOUD_FORBIDDEN, NO_RIGHT),
        ROW("dms", "10240310", CLOUD_FORBIDDEN, NO_RIGHT),
        ROW("dms", "10240311", CLOUD_FORBIDDEN, NO_RIGHT),
        ROW("dms", "10240312", CLOUD_FORBIDDEN, ARREARS),
        ROW("dms", "10240401", CLOUD_GONE, "check the queue's id"),
        ROW("dms", "10240405", CLOUD_GONE, "check the consumer group's id"),
        ROW("dms", "10240406", CLOUD_GONE, "check region and endpoint"),
        ROW("dms", "10240407", CLOUD_THROTTLE, NULL),
        ROW("dms", "10240426", CLOUD_GONE, NULL),
        ROW("dms", "10250002", CLOUD_RETRY, NULL),
        ROW("dms", "10250003", CLOUD_RETRY, NULL),
        ROW("dms", "10250004", CLOUD_RETRY, NULL),
        ROW("dms", "10250005", CLOUD_RETRY, NULL),
        ROW("dms", "10250006", CLOUD_RETRY, NULL),
        ROW("dms", "10540001", CLOUD_FINAL, NULL),
        ROW("dms", "10540003", CLOUD_FINAL, NULL),
        ROW("dms", "10540004", CLOUD_FINAL, NULL),
        ROW("dms", "10540010", CLOUD_FINAL, NULL),
        ROW("dms", "10540011", CLOUD_FINAL, NULL),
        ROW("dms", "10540012", CLOUD_FINAL, NULL),
        ROW("dms", "10540014", CLOUD_FINAL, NULL),
        ROW("dms", "10540202", CLOUD_FINAL, NULL),
        ROW("dms", "10540401", CLOUD_GONE, "check the queue's id"),
        ROW("dms", "10542204", CLOUD_RETRY,
            "another consumer of this group may use another tag rule: a group has one"),
        /* Handlers that were acknowledged already, or whose message was given out again. */
        ROW("dms", "10542205", CLOUD_FINAL, NULL),
        ROW("dms", "10542206", CLOUD_FINAL, NULL),
        ROW("dms", "10542209", CLOUD_FINAL, NULL),
        ROW("dms", "10542214", CLOUD_FINAL, NULL),
        /* Data Ingestion Service, API Reference, "Error Codes" */
        ROW("dis", "DIS.4116", CLOUD_FORBIDDEN,
            "the account is in arrears, or the key has no right to do this"),
        ROW("dis", "DIS.4117", CLOUD_FORBIDDEN, "check the project id"),
        ROW("dis", "DIS.4200", CLOUD_FINAL, NULL),
        ROW("dis", "DIS.4201", CLOUD_GONE, NULL),
        ROW("dis", "DIS.4202", CLOUD_FINAL, NULL),
        ROW("dis", "DIS.4203", CLOUD_FINAL, NULL),
        ROW("dis", "DIS.4204", CLOUD_FINAL, NULL),
        ROW("dis", "DIS.4205", CLOUD_RETRY, NULL),
        ROW("dis", "DIS.4215", CLOUD_FINAL, NULL),
        ROW("dis", "DIS.4216", CLOUD_FINAL, NULL),
        ROW("dis", "DIS.4217", CLOUD_RENEW_CURSOR, NULL),
        ROW("dis", "DIS.4224", CLOUD_RENEW_CURSOR, NULL),
        ROW("dis", "DIS.4225", CLOUD_RENEW_CURSOR, NULL),
        ROW("dis", "DIS.4226", CLOUD_RENEW_CURSOR, NULL),
        ROW("dis", "DIS.4300", CLOUD_FINAL, NULL),
        ROW("dis", "DIS.4301", CLOUD_GONE, "check the stream's name, its region and the project id"),
        ROW("dis", "DIS.4302", CLOUD_GONE, NULL),
        ROW("dis", "DIS.4303", CLOUD_THROTTLE, NULL),
        ROW("dis", "DIS.4305", CLOUD_THROTTLE, NULL),
        ROW("dis", "DIS.4309", CLOUD_THROTTLE,
            "too many requests failed from this address: it is blocked for a while"),
        ROW("dis", "DIS.4319", CLOUD_GONE, NULL),
        ROW("dis", "DIS.4329", CLOUD_FORBIDDEN, "raise the quota of apps, or delete one that is not needed"),
        ROW("dis", "DIS.4330", CLOUD_FINAL, NULL),
        ROW("dis", "DIS.4332", CLOUD_GONE, NULL),
        ROW("dis", "DIS.4339", CLOUD_FORBIDDEN, "raise the quota of consumers"),
        ROW("dis", "DIS.4375", CLOUD_GONE, NULL),
        ROW("dis", "DIS.4701", CLOUD_RETRY, NULL),
        ROW("dis", "DIS.4702", CLOUD_RETRY, NULL),
        ROW("dis", "DIS.4703", CLOUD_RETRY, NULL),
        ROW("dis", "DIS.5000", CLOUD_RETRY, NULL),
        /* Simple Message Notification, API Reference, "Error Codes" */
        ROW("smn", "SMN.00010002", CLOUD_FORBIDDEN, ARREARS),
        ROW("smn", "SMN.00010021", CLOUD_GONE, NULL),
        ROW("smn", "SMN.00010022", CLOUD_GONE, NULL),
        ROW("smn", "SMN.0429", CLOUD_THROTTLE, NULL),
        /* Security Token Service */
        ROW("sts", "STS5.1003", CLOUD_FORBIDDEN, "check the agency, its trust policy and the provider"),
        ROW("sts", "STS5.1007", CLOUD_RETRY, NULL), /* the kubelet writes a new token */
        ROW("sts", "STS5.1100", CLOUD_THROTTLE, NULL),
        /* the API gateway before all services; older ones say APIG */
        ROW("", "APIGW.0101", CLOUD_GONE, "check region and endpoint"),
        ROW("", "APIGW.0202", CLOUD_RETRY, NULL),
        ROW("", "APIGW.0203", CLOUD_RETRY, NULL),
        ROW("", "APIGW.0301", CLOUD_RENEW_CREDENTIALS, KEY),
        ROW("", "APIGW.0302", CLOUD_FORBIDDEN, NO_RIGHT),
        ROW("", "APIGW.0303", CLOUD_RENEW_CREDENTIALS, KEY),
        ROW("", "APIGW.0304", CLOUD_FORBIDDEN, NO_RIGHT),
        ROW("", "APIGW.0305", CLOUD_RENEW_CREDENTIALS, KEY),
        ROW("", "APIGW.0306", CLOUD_FORBIDDEN, NO_RIGHT),
        ROW("", "APIGW.0307", CLOUD_RENEW_CREDENTIALS, KEY),
        ROW("", "APIGW.0308", CLOUD_THROTTLE, NULL),
};
const size_t refusal_rows_n = COUNT_OF(refusal_rows);

const char *cloud_verdict_name(enum cloud_verdict v)
{
        static const char *const names[] = {
                "done", "retry", "throttle", "renew_cursor", "renew_credentials", "gone", "forbidden", "final"
        };

        return names[v];
}

/* ---- what it says ------------------------------------------------------- */

/* The first of these members that exists, as text; numbers too. */
static bool member(const json_t *o, const char *const *names, char *out, size_t size)
{
        for (; *names; names++) {
                const json_t *v = json_object_get(o, *names);

                if (json_is_string(v))
                        (void)snprintf(out, size, "%s", json_string_value(v));
                else if (json_is_integer(v))
                        (void)snprintf(out, size, "%lld", (long long)json_integer_value(v));
                else
                        continue;
                return true;
        }
        return false;
}

/* One line of UTF-8. */
static void tidy(char *text)
{
        size_t n = strlen(text);

        for (size_t i = 0; i < n; i++)
                if ((unsigned char)text[i] < 0x20)
                        text[i] = ' ';
        while (n && !str_is_utf8((struct str){ text, n }))
                text[--n] = 0;
}

/* Error bodies differ: error_code and error_msg, errorCode and errorMsg, errorCode and message, code and
 * message, or one of these one level deeper. A body of another shape is not the service's, and may repeat
 * secrets that we sent. */
static void read_body(struct cloud_error *e, struct str body)
{
        static const char *const codes[] = { "error_code", "errorCode", "code", NULL };
        static const char *const texts[] = { "error_msg", "errorMsg",      "message",
                                             "details",   "error_message", NULL };
        static const char *const deeper[] = { "message", "error" };
        json_t *root = body.n <= BODY_MOST ? json_tree(body, 0, JSON_VALUES_MOST, NULL) : NULL;
        const json_t *o = root;

        for (size_t i = 0; i < COUNT_OF(deeper); i++)
                if (json_is_object(json_object_get(root, deeper[i])))
                        o = json_object_get(root, deeper[i]);
        (void)member(o, codes, e->code, sizeof(e->code));
        (void)member(o, texts, e->words, sizeof(e->words));
        tidy(e->code);
        tidy(e->words);
        json_decref(root);
}

/* ---- what it means ------------------------------------------------------ */

/* The same code may have a prefix, or another one: "DMS.10240401" is 10240401, and APIG.0301 is APIGW.0301.
 */
static bool is_code(const struct refusal_row *row, const char *code)
{
        if (str_starts(str_of(row->code), STR("APIGW.")) && str_starts(str_of(code), STR("APIG.")))
                return strcmp(row->code + strlen("APIGW."), code + strlen("APIG.")) == 0;
        if (strcmp(row->service, "dms") == 0 && str_starts(str_of(code), STR("DMS.")))
                code += strlen("DMS.");
        return strcmp(row->code, code) == 0;
}

static const struct refusal_row *row_of(const char *service, const char *code)
{
        for (size_t i = 0; i < refusal_rows_n; i++) {
                const struct refusal_row *row = &refusal_rows[i];

                if ((!*row->service || strcmp(row->service, service) == 0) && is_code(row, code))
                        return row;
        }
        return NULL;
}

static enum cloud_verdict by_status(int status)
{
        switch (status) {
        case 401: return CLOUD_RENEW_CREDENTIALS;
        case 403: return CLOUD_FORBIDDEN;
        case 404: return CLOUD_GONE;
        case 408: return CLOUD_RETRY;
        case 429: return CLOUD_THROTTLE;
        default: return status >= 500 ? CLOUD_RETRY : CLOUD_FINAL;
        }
}

void refusal_read(struct cloud_error *e, const char *service, int status, struct str body, usec retry_after)
{
        const struct refusal_row *row;

        *e = (struct cloud_error){ .status = status, .retry_after = retry_after };
        if (status >= 200 && status <= 299)
                return;
        read_body(e, body);
        row = row_of(service, e->code);
        /* With a 5xx the code is not reliable. */
        e->verdict = row && (status < 500 || row->verdict == CLOUD_THROTTLE) ? row->verdict
                                                                             : by_status(status);
        e->hint = row ? row->hint : NULL;
        if (status == 429)
                e->verdict = CLOUD_THROTTLE;
}

/* Texts are cut at their room, a few bytes earlier where a character would be split. */
enum { HIDDEN_LEAST = 4, CHARACTER_MOST = 4 };

static void hide(char *text, size_t room, struct str secret)
{
        size_t n = strlen(text);
        bool cut = n + CHARACTER_MOST >= room;
        char *at = text;

        while ((at = memmem(at, n - (size_t)(at - text), secret.p, secret.n)))
                at = (char *)memset(at, '*', secret.n) + secret.n;
        if (!cut)
                return;
        for (size_t left = MIN_OF(secret.n - 1, n); left >= HIDDEN_LEAST; left--)
                if (memcmp(text + n - left, secret.p, left) == 0)
                        memset(text + n - left, '*', left);
}

void refusal_hide(struct cloud_error *e, struct str secret)
{
        if (!secret.n)
                return;
        hide(e->words, sizeof(e->words), secret);
        hide(e->code, sizeof(e->code), secret);
}

static enum error_kind kind_of(const struct cloud_error *e)
{
        switch (e->verdict) {
        case CLOUD_RENEW_CREDENTIALS: return ERROR_UNAUTHORIZED;
        case CLOUD_FORBIDDEN: return ERROR_FORBIDDEN;
        case CLOUD_GONE: return ERROR_NOT_FOUND;
        case CLOUD_RENEW_CURSOR: return ERROR_GONE;
        case CLOUD_DONE:
        case CLOUD_RETRY:
        case CLOUD_THROTTLE:
        case CLOUD_FINAL:
        case CLOUD_VERDICT_MAX: break;
        }
        return e->status == 408               ? ERROR_TIMEOUT
               : e->status == 409             ? ERROR_CONFLICT
               : e->status && e->status < 400 ? ERROR_PROTOCOL
                                              : ERROR_REFUSED;
}

int refusal_error(const struct cloud_error *e, const char *what, struct error *err)
{
        (void)error_set(err, kind_of(e), "%s: %d%s%s%s%s%s%s%s", what, e->status, *e->code ? " " : "",
                        e->code, *e->words ? ": " : "", e->words, e->hint ? " (" : "", e->hint ? e->hint : "",
                        e->hint ? ")" : "");
        if (err) {
                err->retry = e->verdict == CLOUD_RETRY || e->verdict == CLOUD_THROTTLE;
                err->retry_after = e->retry_after;
        }
        return -1;
}
