#include "oauth/oauth.h"

/* application/x-www-form-urlencoded */
static void form_value(struct buf *b, struct str value)
{
        while (value.n) {
                size_t before = value.n;
                struct str word = str_cut(&value, ' ');

                buf_percent(b, word, "-._*");
                if (word.n < before) /* there was a space after the word */
                        buf_char(b, '+');
        }
}

void oauth_body(const struct oauth2_spec *o, struct buf *b)
{
        buf_text(b, "grant_type=client_credentials");
        for (size_t i = 0; i < o->scopes.n; i++) {
                buf_text(b, i ? "+" : "&scope=");
                form_value(b, str_of(o->scopes.list[i]));
        }
        if (o->audience) {
                buf_text(b, "&audience=");
                form_value(b, str_of(o->audience));
        }
}

/* RFC 6749, 2.3.1: id and secret are form-encoded before they are a user's name and password. */
void oauth_basic(struct str id, struct str secret, struct buf *out, struct buf *coded)
{
        BUF_AT_END struct buf pair = BUF_INIT(65536);

        form_value(&pair, id);
        buf_char(&pair, ':');
        form_value(coded, secret);
        buf_str(&pair, buf_view(coded));
        buf_text(out, "Authorization: Basic ");
        buf_base64(out, buf_view(&pair));
        buf_text(out, "\r\n");
        out->failed = out->failed || pair.failed || coded->failed;
}

enum { LIFETIME_MOST = 86400 }; /* seconds that are counted on */

/* A number or, as some servers write it, a string. */
int64_t oauth_lifetime(const json_t *answer)
{
        const json_t *value = json_object_get(answer, "expires_in");
        int64_t seconds = 0;

        if (json_is_string(value) && !str_to_int64(str_of(json_string_value(value)), &seconds))
                return 0;
        if (json_is_real(value))
                seconds = (int64_t)MAX_OF(MIN_OF(json_real_value(value), (double)LIFETIME_MOST), 0.0);
        if (json_is_integer(value))
                seconds = json_integer_value(value);
        return MIN_OF(seconds, (int64_t)LIFETIME_MOST);
}

bool oauth_token_fits(const char *token)
{
        for (; *token; token++)
                if (*token <= ' ' || *token > '~')
                        return false;
        return true;
}

/* RFC 6749, 5.2 */
const char *oauth_words(const json_t *answer, size_t i)
{
        static const char *const members[] = { "error", "error_description" };
        const char *text;

        if (i >= COUNT_OF(members))
                return NULL;
        text = json_string_value(json_object_get(answer, members[i]));
        return text ? text : "";
}
