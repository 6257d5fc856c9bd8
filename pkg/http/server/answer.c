#include "http/server/inside.h"

#include <time.h>

/* The registered reason phrases (IANA, RFC 9110). */
static const char *const texts[600] = {
        [200] = "OK",
        [201] = "Created",
        [202] = "Accepted",
        [203] = "Non-Authoritative Information",
        [204] = "No Content",
        [205] = "Reset Content",
        [206] = "Partial Content",
        [207] = "Multi-Status",
        [208] = "Already Reported",
        [226] = "IM Used",
        [300] = "Multiple Choices",
        [301] = "Moved Permanently",
        [302] = "Found",
        [303] = "See Other",
        [304] = "Not Modified",
        [305] = "Use Proxy",
        [307] = "Temporary Redirect",
        [308] = "Permanent Redirect",
        [400] = "Bad Request",
        [401] = "Unauthorized",
        [402] = "Payment Required",
        [403] = "Forbidden",
        [404] = "Not Found",
        [405] = "Method Not Allowed",
        [406] = "Not Acceptable",
        [407] = "Proxy Authentication Required",
        [408] = "Request Timeout",
        [409] = "Conflict",
        [410] = "Gone",
        [411] = "Length Required",
        [412] = "Precondition Failed",
        [413] = "Content Too Large",
        [414] = "URI Too Long",
        [415] = "Unsupported Media Type",
        [416] = "Range Not Satisfiable",
        [417] = "Expectation Failed",
        [421] = "Misdirected Request",
        [422] = "Unprocessable Content",
        [423] = "Locked",
        [424] = "Failed Dependency",
        [425] = "Too Early",
        [426] = "Upgrade Required",
        [428] = "Precondition Required",
        [429] = "Too Many Requests",
        [431] = "Request Header Fields Too Large",
        [451] = "Unavailable For Legal Reasons",
        [494] = "Request Header Too Large", /* not registered; as nginx says it */
        [500] = "Internal Server Error",
        [501] = "Not Implemented",
        [502] = "Bad Gateway",
        [503] = "Service Unavailable",
        [504] = "Gateway Timeout",
        [505] = "HTTP Version Not Supported",
        [506] = "Variant Also Negotiates",
        [507] = "Insufficient Storage",
        [508] = "Loop Detected",
        [510] = "Not Extended",
        [511] = "Network Authentication Required",
};

static const char *text_of(int status)
{
        static const char *const classes[] = {
                "", "", "Success", "Redirection", "Client Error", "Server Error"
        };

        return status < 600 ? (texts[status] ? texts[status] : classes[status / 100]) : "Status";
}

/* The Date of this second; the wall clock is read once a second. */
static void put_date(struct http_server *s, struct buf *out)
{
        usec now = loop_now(s->loop), wall;
        struct tm parts;
        time_t seconds;

        if (now >= s->date_until) {
                wall = clock_wall(&system_clock);
                seconds = (time_t)(wall / USEC_SEC);
                s->date_until = now + USEC_SEC - wall % USEC_SEC;
                (void)gmtime_r(&seconds, &parts);
                (void)strftime(s->date, sizeof(s->date), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &parts);
        }
        buf_add(out, s->date, 37);
}

bool answer_has_body(const struct http_call *c, int status)
{
        return status != 204 && status != 205 && status != 304 &&
               (!http_intake_complete(&c->work->intake) || c->work->intake.codec.message.method != HTTP_HEAD);
}

static bool says_length(struct str headers)
{
        while (headers.n) {
                struct str line = str_cut(&headers, '\n');

                if (str_equal_nocase(str_cut(&line, ':'), STR("Content-Length")))
                        return true;
        }
        return false;
}

/* RFC 9110, 8.6: the answer to HEAD has the Content-Length that a GET would have had. Only the handler knows
 * it, unless it gave that body. */
static void put_length(const struct http_call *c, int status, struct str headers, size_t body,
                       struct buf *out)
{
        bool head = http_intake_complete(&c->work->intake) &&
                    c->work->intake.codec.message.method == HTTP_HEAD;

        if (status == 204 || status == 304 || (head && (!body || says_length(headers)) && status != 205))
                return;
        buf_str(out, STR("Content-Length: "));
        buf_int(out, status == 205 ? 0 : (int64_t)body);
        buf_str(out, STR("\r\n"));
}

void answer_head(struct http_call *c, int status, struct str content_type, struct str headers, size_t body,
                 bool keep)
{
        struct buf *out = &c->work->out;

        /* 1xx answers are the server's own, and a status has three digits. */
        if (status < 200 || status > 999)
                status = 500;
        buf_str(out, STR("HTTP/1.1 "));
        buf_int(out, status);
        buf_char(out, ' ');
        buf_text(out, text_of(status));
        buf_str(out, STR("\r\n"));
        put_date(c->server, out);
        if (content_type.n) {
                buf_str(out, STR("Content-Type: "));
                buf_str(out, content_type);
                buf_str(out, STR("\r\n"));
        }
        buf_str(out, headers);
        put_length(c, status, headers, body, out);
        if (keep && c->work->intake.version_1_0)
                buf_str(out, STR("Connection: keep-alive\r\n"));
        if (keep)
                buf_str(out, STR("\r\n"));
        else
                buf_str(out, STR("Connection: close\r\n\r\n"));
}
