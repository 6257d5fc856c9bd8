#include "http/server/intake.h"

static const int statuses[HTTP_REFUSAL_MAX] = {
        [HTTP_MALFORMED] = 400,       [HTTP_URI_TOO_LONG] = 414,    [HTTP_HEADER_TOO_LARGE] = 431,
        [HTTP_HEAD_TOO_LARGE] = 431,  [HTTP_BODY_TOO_LARGE] = 413,  [HTTP_TIMED_OUT] = 408,
        [HTTP_NOT_IMPLEMENTED] = 501, [HTTP_VERSION_UNKNOWN] = 505, [HTTP_EXPECTATION] = 417,
        [HTTP_OVERLOADED] = 503,
};

int http_refusal_status(enum http_refusal r) { return statuses[r]; }

/* Classes of bytes: where each may stand. */
enum { TEXT = 1, TOKEN = 2, TARGET = 4, HOST = 8, DIGIT = 16, HEX = 32 };
#define COMMON TEXT | TOKEN | TARGET | HOST
#define COMMON_DIGIT TEXT | TOKEN | TARGET | HOST | DIGIT | HEX
static const uint8_t classes[256] = {
        ['\t'] = TEXT,
        [' '] = TEXT,
        ['!'] = COMMON,
        ['"'] = TEXT | TARGET,
        ['#'] = TEXT | TOKEN,
        ['$'] = COMMON,
        ['%'] = COMMON,
        ['&'] = COMMON,
        ['\''] = COMMON,
        ['('] = TEXT | TARGET | HOST,
        [')'] = TEXT | TARGET | HOST,
        ['*'] = COMMON,
        ['+'] = COMMON,
        [','] = TEXT | TARGET | HOST,
        ['-'] = COMMON,
        ['.'] = COMMON,
        ['/'] = TEXT | TARGET,
        ['0' ... '9'] = COMMON_DIGIT,
        [':'] = TEXT | TARGET,
        [';'] = TEXT | TARGET | HOST,
        ['<'] = TEXT | TARGET,
        ['='] = TEXT | TARGET | HOST,
        ['>'] = TEXT | TARGET,
        ['?'] = TEXT | TARGET,
        ['@'] = TEXT | TARGET,
        ['A' ... 'F'] = COMMON | HEX,
        ['G' ... 'Z'] = COMMON,
        ['['] = TEXT | TARGET,
        ['\\'] = TEXT | TARGET,
        [']'] = TEXT | TARGET,
        ['^'] = TEXT | TOKEN | TARGET,
        ['_'] = COMMON,
        ['`'] = TEXT | TOKEN | TARGET,
        ['a' ... 'f'] = COMMON | HEX,
        ['g' ... 'z'] = COMMON,
        ['{'] = TEXT | TARGET,
        ['|'] = TEXT | TOKEN | TARGET,
        ['}'] = TEXT | TARGET,
        ['~'] = COMMON,
        [0x80 ... 0xff] = TEXT,
};

static bool is(char c, int class) { return classes[(unsigned char)c] & class; }

static bool all_are(struct str s, int class)
{
        for (size_t i = 0; i < s.n; i++)
                if (!is(s.p[i], class))
                        return false;
        return true;
}

static int refuse(struct http_intake *k, enum http_refusal refusal, const char *why)
{
        k->refusal = refusal;
        k->why = why;
        return -1;
}

static int malformed(struct http_intake *k, const char *why) { return refuse(k, HTTP_MALFORMED, why); }

/* ---- the request line --------------------------------------------------- */

static const struct {
        struct str name;
        uint8_t method;
} methods[] = {
#define METHOD(number, name, string) { { #string, sizeof(#string) - 1 }, HTTP_##name },
        METHOD(0, POST, POST) METHOD(0, GET, GET) METHOD(0, PUT, PUT) METHOD(0, HEAD, HEAD)
                METHOD(0, OPTIONS, OPTIONS) METHOD(0, PATCH, PATCH) METHOD(0, DELETE, DELETE)
                        HTTP_METHOD_MAP(METHOD)
#undef METHOD
};

static int take_method(struct http_intake *k, struct str name)
{
        for (size_t i = 0; i < COUNT_OF(methods); i++)
                if (str_equal(methods[i].name, name)) {
                        k->method = methods[i].method;
                        /* to the parser SOURCE is a method of Icecast's protocol only */
                        if (k->method == HTTP_CONNECT || k->method == HTTP_SOURCE)
                                break;
                        return 0;
                }
        return refuse(k, HTTP_NOT_IMPLEMENTED, "the method is not supported");
}

static bool is_port(struct str s)
{
        int64_t port = 0;

        return s.n == 0 || (s.n <= 5 && all_are(s, DIGIT) && str_to_int64(s, &port) && port <= 65535);
}

/* uri-host [ ":" port ] */
static bool is_host(struct str s)
{
        struct str name = s;

        if (s.n && s.p[0] == '[') {
                name.p++;
                name.n--;
                name = str_cut(&name, ']');
                if (name.n == 0 || name.n + 2 > s.n)
                        return false;
                for (size_t i = 0; i < name.n; i++)
                        if (!is(name.p[i], HEX) && name.p[i] != ':' && name.p[i] != '.')
                                return false;
                s = (struct str){ name.p + name.n + 1, s.n - name.n - 2 };
                return s.n == 0 || (s.p[0] == ':' && is_port((struct str){ s.p + 1, s.n - 1 }));
        }
        name = str_cut(&s, ':');
        return name.n && all_are(name, HOST) && is_port(s);
}

/* The authority of a target in absolute form, and what follows it in *rest; false: it is not in absolute
 * form. */
static bool absolute(struct str target, struct str *authority, struct str *rest)
{
        size_t scheme = str_equal_nocase((struct str){ target.p, MIN_OF(target.n, (size_t)7) },
                                         STR("http://"))
                                ? 7
                        : str_equal_nocase((struct str){ target.p, MIN_OF(target.n, (size_t)8) },
                                           STR("https://"))
                                ? 8
                                : 0;
        size_t n = 0;

        if (!scheme)
                return false;
        *authority = (struct str){ target.p + scheme, target.n - scheme };
        while (n < authority->n && authority->p[n] != '/' && authority->p[n] != '?')
                n++;
        *rest = (struct str){ authority->p + n, authority->n - n };
        authority->n = n;
        return true;
}

static int take_target(struct http_intake *k, struct str target)
{
        struct str authority, rest;

        if (k->limits.target_max && target.n > k->limits.target_max)
                return refuse(k, HTTP_URI_TOO_LONG, "the target is too long");
        if (!all_are(target, TARGET))
                return malformed(k, "an invalid byte in the target");
        if (target.p[0] == '/' || (str_is(target, "*") && k->method == HTTP_OPTIONS))
                return 0;
        if (!absolute(target, &authority, &rest) || !is_host(authority))
                return malformed(k, "the target is neither a path nor an http URL");
        return 0;
}

static int take_request_line(struct http_intake *k, const char *block, struct str line)
{
        struct str version = line, name = str_cut(&version, ' '), target = str_cut(&version, ' ');

        if (!name.n || !all_are(name, TOKEN) || !target.n)
                return malformed(k, "the request line is not METHOD TARGET HTTP/1.1");
        if (version.n != 8 || memcmp(version.p, "HTTP/", 5) != 0 || !is(version.p[5], DIGIT) ||
            version.p[6] != '.' || !is(version.p[7], DIGIT))
                return malformed(k, "the request line is not METHOD TARGET HTTP/1.1");
        if (version.p[5] != '1' || version.p[7] > '1')
                return refuse(k, HTTP_VERSION_UNKNOWN, "HTTP/1.0 and HTTP/1.1 are spoken here");
        k->version_1_0 = version.p[7] == '0';
        k->target_at = (size_t)(target.p - block);
        k->target_n = target.n;
        return take_method(k, name) < 0 ? -1 : take_target(k, target);
}

/* ---- headers ------------------------------------------------------------ */

static int take_length(struct http_intake *k, struct str value)
{
        int64_t n = 0;

        if (k->lengths++)
                return malformed(k, "more than one Content-Length");
        if (!value.n || value.n > 19 || !all_are(value, DIGIT) || !str_to_int64(value, &n))
                return malformed(k, "an invalid Content-Length");
        k->left = (uint64_t)n;
        return 0;
}

static int take_coding(struct http_intake *k, struct str value)
{
        struct str rest = value;
        bool chunked = false;

        if (k->codings++)
                return malformed(k, "more than one Transfer-Encoding");
        if (str_equal_nocase(value, STR("chunked")))
                return 0;
        /* If chunked is not the last coding nobody can tell where the body ends (RFC 9112, 6.3). */
        while (rest.n) {
                struct str coding = str_trim(str_cut(&rest, ','));

                chunked = chunked || str_equal_nocase(coding, STR("chunked"));
                if (chunked && rest.n)
                        return malformed(k, "chunked is not the last transfer coding");
        }
        return value.n ? refuse(k, HTTP_NOT_IMPLEMENTED, "the only supported transfer coding is chunked")
                       : malformed(k, "an empty Transfer-Encoding");
}

static int take_host(struct http_intake *k, struct str value)
{
        if (k->hosts++)
                return malformed(k, "more than one Host");
        return is_host(value) ? 0 : malformed(k, "an invalid Host");
}

static int take_connection(struct http_intake *k, struct str value)
{
        while (value.n) {
                struct str option = str_trim(str_cut(&value, ','));

                k->close = k->close || str_equal_nocase(option, STR("close"));
                k->keep_alive = k->keep_alive || str_equal_nocase(option, STR("keep-alive"));
        }
        return 0;
}

static int take_expect(struct http_intake *k, struct str value)
{
        if (!str_equal_nocase(value, STR("100-continue")))
                return refuse(k, HTTP_EXPECTATION, "100-continue is the one expectation that is met");
        k->wants_continue = true;
        return 0;
}

static const struct {
        struct str name;
        int (*take)(struct http_intake *, struct str value);
        bool framing;
} watched[] = {
        { { "host", 4 }, take_host, false },
        { { "connection", 10 }, take_connection, false },
        { { "content-length", 14 }, take_length, true },
        { { "transfer-encoding", 17 }, take_coding, true },
        { { "expect", 6 }, take_expect, false },
};

static int take_header(struct http_intake *k, struct str line)
{
        struct str value = line, name = str_cut(&value, ':');

        if (k->limits.header_max && line.n > k->limits.header_max)
                return refuse(k, HTTP_HEADER_TOO_LARGE, "a header is too large");
        if (k->limits.headers_max && k->lines > k->limits.headers_max)
                return refuse(k, HTTP_HEAD_TOO_LARGE, "too many headers");
        if (line.p[0] == ' ' || line.p[0] == '\t')
                return malformed(k, "a folded header");
        if (!name.n || name.n == line.n || !all_are(name, TOKEN))
                return malformed(k, "a header that is not NAME: VALUE");
        for (size_t i = 0; i < COUNT_OF(watched); i++)
                if (name.n == watched[i].name.n && str_equal_nocase(name, watched[i].name)) {
                        /* Some programs take a tab around a length for white space, others for an error. */
                        if (watched[i].framing && memchr(value.p, '\t', value.n))
                                return malformed(k, "a tab in a header that says where the body ends");
                        return watched[i].take(k, str_trim(value));
                }
        return 0;
}

/* ---- the head ----------------------------------------------------------- */

/* The parser must accept everything that the guard let pass. */
static int pass(struct http_intake *k, const char *from, const char *to)
{
        struct error err;
        size_t used;

        if (from == to)
                return 0;
        if (http_codec_feed(&k->codec, (struct str){ from, (size_t)(to - from) }, &used, &err) < 0 ||
            used != (size_t)(to - from))
                return k->codec.refuse_status == 503 ? refuse(k, HTTP_OVERLOADED, "out of memory")
                                                     : malformed(k, "not HTTP");
        return 0;
}

static int finish(struct http_intake *k)
{
        if (!k->codec.message.complete)
                return malformed(k, "not HTTP");
        k->codec.message.keep_alive = !k->close && (!k->version_1_0 || k->keep_alive);
        k->state = INTAKE_COMPLETE;
        return 0;
}

/* Puts the target into origin form and its authority into Host, so that handlers see one host. */
static int to_origin_form(struct http_intake *k, struct str target)
{
        struct http_message *m = &k->codec.message;
        struct buf head = BUF_INIT(m->head.max + target.n + 8);
        struct str authority, rest;

        if (!absolute(target, &authority, &rest))
                return 0;
        buf_text(&head, "Host");
        buf_char(&head, 0);
        buf_str(&head, authority);
        buf_char(&head, 0);
        for (const char *p = m->head.p, *end = p ? p + m->head.n : NULL; p && p < end;) {
                size_t name = strlen(p) + 1, value = strlen(p + name) + 1;

                if (!str_equal_nocase(str_of(p), STR("Host")))
                        buf_add(&head, p, name + value);
                p += name + value;
        }
        buf_reset(&m->target);
        if (!rest.n && k->method == HTTP_OPTIONS)
                buf_char(&m->target, '*');
        else if (!rest.n || rest.p[0] == '?')
                buf_char(&m->target, '/');
        buf_str(&m->target, rest);
        buf_done(&m->head);
        m->head = head;
        return head.failed || m->target.failed ? refuse(k, HTTP_OVERLOADED, "out of memory") : 0;
}

static int take_head(struct http_intake *k, struct str block)
{
        if (!k->hosts && !k->version_1_0)
                return malformed(k, "exactly one Host header is needed");
        if (k->codings && k->lengths)
                return malformed(k, "Transfer-Encoding and Content-Length");
        if (k->codings && k->version_1_0)
                return malformed(k, "Transfer-Encoding in HTTP/1.0");
        if (k->left > k->limits.body_max)
                return refuse(k, HTTP_BODY_TOO_LARGE, "the body is too large");
        k->wants_continue = k->wants_continue && !k->version_1_0 && (k->codings || k->left);
        if (pass(k, block.p, block.p + block.n) < 0 ||
            to_origin_form(k, (struct str){ block.p + k->target_at, k->target_n }) < 0)
                return -1;
        if (k->codec.message.complete != (!k->codings && !k->left))
                return malformed(k, "not HTTP");
        if (k->codec.message.complete)
                return finish(k);
        k->state = k->codings ? INTAKE_SIZE : INTAKE_LENGTH;
        return 0;
}

/* Is what has come of an incomplete line too long already? */
static int check_head_size(struct http_intake *k, size_t n)
{
        bool first = k->lines == 0;

        if (first && k->limits.target_max && n - k->line > k->limits.target_max + 32)
                return refuse(k, HTTP_URI_TOO_LONG, "the target is too long");
        if (!first && k->limits.header_max && n - k->line > k->limits.header_max + 2)
                return refuse(k, HTTP_HEADER_TOO_LARGE, "a header is too large");
        if (n > k->limits.head_max)
                return first ? refuse(k, HTTP_URI_TOO_LONG, "the target is too long")
                             : refuse(k, HTTP_HEAD_TOO_LARGE, "the headers are too large");
        return 0;
}

/* Reads lines up to the empty one. */
static int take_lines(struct http_intake *k, struct str bytes, size_t *used)
{
        const char *end = bytes.p + bytes.n;

        for (;;) {
                const char *p = bytes.p + k->scanned;
                struct str line;

                while (p < end && is(*p, TEXT))
                        p++;
                k->scanned = (size_t)(p - bytes.p);
                line = (struct str){ bytes.p + k->line, k->scanned - k->line };
                if (p == end || (*p == '\r' && p + 1 == end))
                        return check_head_size(k,
                                               k->scanned); /* a CR is counted with the byte that follows */
                /* Check the size before the form, so that the answer is the same however the bytes arrived in
                 * pieces. */
                if (*p != '\r' || p[1] != '\n')
                        return check_head_size(k, k->scanned) < 0
                                       ? -1
                                       : malformed(k, *p == '\n' || *p == '\r'
                                                              ? "a line that does not end in CRLF"
                                                              : "a control character");
                if (check_head_size(k, k->scanned + 2) < 0)
                        return -1;
                k->scanned += 2;
                if (line.n == 0 && k->lines) {
                        *used = k->scanned;
                        return take_head(k, (struct str){ bytes.p, k->scanned });
                }
                if ((k->lines ? take_header(k, line) : take_request_line(k, bytes.p, line)) < 0)
                        return -1;
                k->lines++;
                k->line = k->scanned;
        }
}

/* Skips empty lines before a request; they do not begin one. */
static int take_empty_lines(struct http_intake *k, struct str bytes, size_t *used)
{
        while (*used < bytes.n && (bytes.p[*used] == '\r' || bytes.p[*used] == '\n')) {
                if (bytes.p[*used] == '\n' || (*used + 1 < bytes.n && bytes.p[*used + 1] != '\n'))
                        return malformed(k, "a line that does not end in CRLF");
                if (*used + 1 == bytes.n)
                        return 0;
                if (++k->empty_lines > HTTP_EMPTY_LINES_MAX)
                        return malformed(k, "too many empty lines");
                *used += 2;
        }
        if (*used == bytes.n)
                return 0;
        if (!is(bytes.p[*used], TOKEN))
                return malformed(k, "the request line is not METHOD TARGET HTTP/1.1");
        k->state = INTAKE_HEAD;
        return 0;
}

/* ---- the body ----------------------------------------------------------- */

static int take_of_length(struct http_intake *k, struct str bytes, size_t *used)
{
        *used = (size_t)MIN_OF((uint64_t)bytes.n, k->left);
        k->left -= *used;
        if (pass(k, bytes.p, bytes.p + *used) < 0)
                return -1;
        if (k->codec.message.complete != (k->left == 0))
                return malformed(k, "not HTTP");
        return k->left ? 0 : finish(k);
}

static int take_digit(struct http_intake *k, char c)
{
        unsigned digit = is(c, DIGIT) ? (unsigned)(c - '0') : (unsigned)((c | 32) - 'a' + 10);

        if (++k->digits > 16)
                return malformed(k, "a chunk size that is too long");
        k->left = k->left << 4 | digit;
        /* A size exceeds the maximum before it can overflow. */
        return k->left > k->limits.body_max || k->size + k->left > k->limits.body_max
                       ? refuse(k, HTTP_BODY_TOO_LARGE, "the body is too large")
                       : 0;
}

static int to(struct http_intake *k, enum http_intake_state state)
{
        k->state = state;
        return 0;
}

/* Handles one byte of a chunk's framing. */
static int take_chunk_byte(struct http_intake *k, char c)
{
        switch (k->state) {
        case INTAKE_SIZE:
                if (is(c, HEX))
                        return take_digit(k, c);
                if (!k->digits || (c != '\r' && c != ';'))
                        return malformed(k, "an invalid chunk size");
                return to(k, c == ';' ? INTAKE_EXTENSION : INTAKE_SIZE_LF);
        case INTAKE_EXTENSION:
                if (c != '\r' && !is(c, TEXT))
                        return malformed(k, "a chunk extension that does not end in CRLF");
                if (++k->extensions > HTTP_EXTENSIONS_MAX)
                        return malformed(k, "too many chunk extensions");
                return to(k, c == '\r' ? INTAKE_SIZE_LF : INTAKE_EXTENSION);
        case INTAKE_SIZE_LF:
                return c == '\n' ? to(k, k->left ? INTAKE_DATA : INTAKE_TRAILER)
                                 : malformed(k, "a chunk size that does not end in CRLF");
        case INTAKE_DATA_CR:
                return c == '\r' ? to(k, INTAKE_DATA_LF)
                                 : malformed(k, "a chunk that is longer than its size");
        case INTAKE_DATA_LF:
                k->digits = 0;
                return c == '\n' ? to(k, INTAKE_SIZE) : malformed(k, "a chunk that does not end in CRLF");
        case INTAKE_BEFORE:
        case INTAKE_HEAD:
        case INTAKE_LENGTH:
        case INTAKE_DATA:
        case INTAKE_TRAILER:
        case INTAKE_TRAILER_NAME:
        case INTAKE_TRAILER_VALUE:
        case INTAKE_TRAILER_LF:
        case INTAKE_END_LF:
        case INTAKE_COMPLETE: break;
        }
        return malformed(k, "not HTTP");
}

static int take_trailer_byte(struct http_intake *k, char c)
{
        if (++k->trailers > k->limits.head_max)
                return refuse(k, HTTP_HEAD_TOO_LARGE, "the trailers are too large");
        if (k->state == INTAKE_TRAILER && c == '\r')
                return to(k, INTAKE_END_LF);
        if ((k->state == INTAKE_TRAILER || k->state == INTAKE_TRAILER_NAME) && is(c, TOKEN))
                return to(k, INTAKE_TRAILER_NAME);
        if (k->state == INTAKE_TRAILER_NAME && c == ':')
                return to(k, INTAKE_TRAILER_VALUE);
        if (k->state == INTAKE_TRAILER_VALUE && (c == '\r' || is(c, TEXT)))
                return to(k, c == '\r' ? INTAKE_TRAILER_LF : INTAKE_TRAILER_VALUE);
        if ((k->state == INTAKE_TRAILER_LF || k->state == INTAKE_END_LF) && c == '\n')
                return to(k, k->state == INTAKE_END_LF ? INTAKE_COMPLETE : INTAKE_TRAILER);
        return malformed(k, "a trailer that is not NAME: VALUE");
}

/* The parser gets neither extensions nor trailers, only the end of their line, or the line before them. */
static bool is_skipped(const struct http_intake *k)
{
        return k->state == INTAKE_EXTENSION ||
               (k->state >= INTAKE_TRAILER_NAME && k->state <= INTAKE_TRAILER_LF) ||
               (k->state == INTAKE_TRAILER && k->trailers);
}

static void take_data(struct http_intake *k, size_t n)
{
        k->left -= n;
        k->size += n;
        if (!k->left)
                k->state = INTAKE_DATA_CR;
}

static int take_chunks(struct http_intake *k, struct str bytes, size_t *used)
{
        /* where the bytes for the parser begin; NULL: there are none */
        const char *p = bytes.p, *end = p + bytes.n, *from = p;

        if (is_skipped(k))
                from = NULL;
        while (p < end && k->state != INTAKE_COMPLETE) {
                const char *at = p;

                if (k->state == INTAKE_DATA) {
                        p += MIN_OF((uint64_t)(end - p), k->left);
                        take_data(k, (size_t)(p - at));
                        continue;
                }
                if ((k->state < INTAKE_TRAILER ? take_chunk_byte(k, *p++) : take_trailer_byte(k, *p++)) < 0)
                        return -1;
                if (from && is_skipped(k)) {
                        if (pass(k, from, at) < 0)
                                return -1;
                        from = NULL;
                } else if (!from && !is_skipped(k))
                        from = at;
        }
        *used = (size_t)(p - bytes.p);
        if (from && pass(k, from, p) < 0)
                return -1;
        if (k->codec.message.complete != (k->state == INTAKE_COMPLETE))
                return malformed(k, "not HTTP");
        return k->state == INTAKE_COMPLETE ? finish(k) : 0;
}

/* ------------------------------------------------------------------------- */

void http_intake_init(struct http_intake *k, const struct http_limits *limits)
{
        *k = (struct http_intake){ .limits = *limits };
        http_codec_init(&k->codec, true, limits->head_max, limits->body_max);
        k->codec.refuse_large_body = true;
}

void http_intake_done(struct http_intake *k) { http_codec_done(&k->codec); }

void http_intake_next(struct http_intake *k)
{
        http_codec_next(&k->codec);
        k->state = INTAKE_BEFORE;
        k->line = k->scanned = k->target_at = k->target_n = k->extensions = k->trailers = 0;
        k->lines = k->empty_lines = k->hosts = k->lengths = k->codings = k->digits = 0;
        k->left = k->size = 0;
        k->version_1_0 = k->close = k->keep_alive = k->wants_continue = false;
        k->why = NULL;
}

int http_intake_feed(struct http_intake *k, struct str bytes, size_t *used)
{
        *used = 0;
        if (k->why)
                return -1;
        if (k->state == INTAKE_BEFORE && take_empty_lines(k, bytes, used) < 0)
                return -1;
        /* Empty lines and the head behind them are taken separately: offsets count from the bytes offered. */
        if (k->state == INTAKE_HEAD && *used == 0 && take_lines(k, bytes, used) < 0)
                return -1;
        if (*used || !bytes.n || k->state == INTAKE_BEFORE || k->state == INTAKE_HEAD ||
            k->state == INTAKE_COMPLETE)
                return 0;
        return k->state == INTAKE_LENGTH ? take_of_length(k, bytes, used) : take_chunks(k, bytes, used);
}
