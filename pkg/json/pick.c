#include "json/pick.h"

static const char null_word[] = "null";

void json_pick_begin(struct json_pick *p, struct str name)
{
        struct buf out = p->out;

        buf_reset(&out);
        *p = (struct json_pick){ .name = name, .out = out };
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static void begin_value(struct json_pick *p)
{
        p->state = PICK_IN_VALUE;
        p->depth = 0;
        p->in_string = p->escaped = false;
        if (!p->wanted)
                return;
        buf_text(&p->out, p->any ? ",\"" : "{\"");
        buf_str(&p->out, p->name);
        buf_text(&p->out, "\":");
        p->any = true;
}

/* Within a string of the value; false: it has ended, and the value with it. */
static bool string_goes_on(struct json_pick *p, char c)
{
        if (p->escaped)
                p->escaped = false;
        else if (c == '\\')
                p->escaped = true;
        else if (c == '"') {
                p->in_string = false;
                return p->depth > 0;
        }
        return true;
}

/* One character of a value. False: it ended before this one, which belongs to the object. */
static bool value_takes(struct json_pick *p, char c)
{
        if (p->in_string) {
                if (!string_goes_on(p, c))
                        p->state = PICK_MORE;
                return true;
        }
        switch (c) {
        case '"': p->in_string = true; return true;
        case '{':
        case '[': p->depth++; return true;
        case '}':
        case ']':
                if (!p->depth)
                        return false;
                if (--p->depth == 0)
                        p->state = PICK_MORE;
                return true;
        default: return p->depth || !(c == ',' || is_space(c));
        }
}

static void value(struct json_pick *p, char c);

static void between(struct json_pick *p, char c)
{
        if (is_space(c))
                return;
        switch (p->state) {
        case PICK_START:
                p->matched = 1;
                p->state = c == '{' ? PICK_KEY_OR_END : c == null_word[0] ? PICK_NULL : PICK_BROKEN;
                return;
        case PICK_KEY_OR_END:
        case PICK_KEY:
                if (c == '"') {
                        p->state = PICK_IN_KEY;
                        p->matched = 0;
                        p->escaped = false;
                } else
                        p->state = c == '}' && p->state == PICK_KEY_OR_END ? PICK_END : PICK_BROKEN;
                return;
        case PICK_COLON: p->state = c == ':' ? PICK_VALUE : PICK_BROKEN; return;
        case PICK_VALUE:
                begin_value(p);
                value(p, c);
                return;
        case PICK_MORE: p->state = c == ',' ? PICK_KEY : c == '}' ? PICK_END : PICK_BROKEN; return;
        case PICK_END:
        case PICK_BROKEN:
        case PICK_NULL:
        case PICK_IN_KEY:
        case PICK_IN_VALUE: p->state = PICK_BROKEN; return;
        }
}

static void value(struct json_pick *p, char c)
{
        if (value_takes(p, c)) {
                if (p->wanted)
                        buf_char(&p->out, c);
                return;
        }
        p->state = PICK_MORE;
        between(p, c);
}

/* The next character of a key, as it is without escapes. */
static void compare(struct json_pick *p, unsigned c)
{
        bool agrees = p->matched < p->name.n && (unsigned char)p->name.p[p->matched] == c;

        p->matched = agrees ? p->matched + 1 : SIZE_MAX;
}

/* A digit of a \u. A name is of ASCII. */
static void digit(struct json_pick *p, char c)
{
        int value = hex_digit(c);

        if (value < 0) {
                p->state = PICK_BROKEN;
                return;
        }
        p->character = p->character << 4 | (unsigned)value;
        if (--p->digits == 0)
                compare(p, p->character < 0x80 ? p->character : UINT32_MAX);
}

static void key(struct json_pick *p, char c)
{
        if (p->digits)
                digit(p, c);
        else if (p->escaped && c == 'u') {
                p->escaped = false;
                p->digits = 4;
                p->character = 0;
        } else if (p->escaped) {
                p->escaped = false;
                compare(p, UINT32_MAX); /* no name has what these stand for */
        } else if (c == '\\')
                p->escaped = true;
        else if (c == '"') {
                p->wanted = p->matched == p->name.n;
                p->state = PICK_COLON;
        } else
                compare(p, (unsigned char)c);
}

void json_pick_feed(struct json_pick *p, struct str piece)
{
        for (size_t i = 0; i < piece.n && p->state != PICK_BROKEN; i++) {
                char c = piece.p[i];

                switch (p->state) {
                case PICK_IN_KEY: key(p, c); break;
                case PICK_IN_VALUE: value(p, c); break;
                case PICK_NULL:
                        if (p->matched < sizeof(null_word) - 1 && c == null_word[p->matched])
                                p->matched++;
                        else if (p->matched < sizeof(null_word) - 1 || !is_space(c))
                                p->state = PICK_BROKEN;
                        break;
                case PICK_START:
                case PICK_KEY_OR_END:
                case PICK_KEY:
                case PICK_COLON:
                case PICK_VALUE:
                case PICK_MORE:
                case PICK_END:
                case PICK_BROKEN: between(p, c); break;
                }
        }
}

struct str json_pick_end(struct json_pick *p)
{
        if (p->state == PICK_START || (p->state == PICK_NULL && p->matched == sizeof(null_word) - 1))
                return STR("");
        if (p->state != PICK_END)
                return (struct str){ 0 };
        buf_text(&p->out, p->any ? "}" : "{}");
        return p->out.failed ? (struct str){ 0 } : buf_view(&p->out);
}
