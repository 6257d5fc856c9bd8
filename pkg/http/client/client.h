/* The HTTP client: a pool of connections per target. libcurl connects (addresses, proxies) and hands over the
 * socket, OpenSSL encrypts, llhttp or nghttp2 does the framing. Over HTTP/1.1 a request is one write and one
 * read at best; over HTTP/2 many requests share one write. One client per process, on its loop's thread. It
 * implements port/http.h.
 *
 * The client itself sends a request again only when it surely was not processed: no byte of it was written,
 * the peer answered REFUSED_STREAM, or its stream is above GOAWAY's last one. It does so once more in the
 * race of an idle connection that its server closes: the connection had carried answers, ends without one
 * byte of an answer, and the peer's system has acknowledged nothing of the request. This last case is
 * excluded where a proxy stands between, since the proxy acknowledges for itself, and where the target says
 * `once`. */
#pragma once

#include "base/loop.h"
#include "http/wire/url.h"
#include "port/http.h"

struct http_client;

int http_client_new(struct http_client **, struct loop *, struct error *) MUST_CHECK;
/* Asks these name servers ("ADDRESS[:PORT],…") instead of the system's. */
int http_client_use_servers(struct http_client *, const char *servers, struct error *) MUST_CHECK;
/* Limits the memory for large answers, those above 256 KiB: so many bytes in all, for the answers that are
 * being read or not released yet. The sockets of the others are not read meanwhile. 0, the default: no limit.
 */
void http_client_limit_answers(struct http_client *, size_t bytes);
/* after its targets and requests; NULL is fine */
struct http_client *http_client_free(struct http_client *);

enum http_version {
        HTTP_1_1,
        HTTP_AUTO,              /* HTTP/2 where TLS is spoken and the peer agrees (ALPN), else HTTP/1.1 */
        HTTP_2_PRIOR_KNOWLEDGE, /* HTTP/2 from the first byte, with and without TLS */
};

/* Zeroed: the system's authorities, the name in the URL, no client certificate. Files are read again for each
 * new connection. */
struct http_tls {
        /* authorities that are trusted, and no others; n 0: those of ca_file */
        struct str ca_pem;
        const char *ca_file;          /* NULL: the system's */
        const char *client_cert_file; /* PEM; NULL: none */
        const char *client_key_file;  /* PEM; NULL: in the certificate's file */
        /* the name for SNI, which the certificate must be valid for; NULL: the URL's host */
        const char *server_name;
        bool any_host; /* do not verify the certificate's name */
};

/* The user's names for the settings behind a target, so that errors can say which one to look at. Constants,
 * borrowed. NULL members: errors name no setting. */
struct http_settings {
        const char *ca, *client_cert, *any_host, *proxy; /* any_host: with its value, as in "any: true" */
};

/* Requests go through a tunnel that the proxy opens (CONNECT), with and without TLS; it also resolves the
 * name. */
struct http_proxy {
        /* "http://host:port"; n 0: none. The environment's is never used */
        struct str url;
        /* files; NULL: none. Read for each new connection; if a file is gone, its last value is used */
        const char *user_file, *password_file;
        struct str no_proxy; /* comma separated: host, .domain, ADDRESS, ADDRESS/BITS or "*" */
};

/* Copied by http_target_new. Zeroed members have the defaults noted beside them; the version is HTTP/1.1. */
struct http_target_config {
        struct str url;
        const char *method;       /* NULL: POST */
        struct str headers;       /* constant "Name: value\r\n" lines */
        uint32_t max_connections; /* there may be more for a moment, while old ones are replaced */
        usec connect_timeout;
        /* from the end of the request to the end of its answer; 0: no limit */
        usec response_timeout;
        /* how long a connection is used, less up to a quarter of jitter, so that new pods get their share; 0:
         * no limit */
        usec max_age;
        size_t answer_max; /* a longer body is cut to so many bytes */
        /* of a longer body the rest is not even read: the answer ends there, cut; 0: 64 MiB */
        uint64_t answer_read_max;
        /* borrowed; the name of a member that is returned whole if the answer is a JSON object, even if the
         * body is cut; NULL: none */
        const char *answer_member;
        enum http_version http_version;
        uint32_t max_streams; /* concurrent streams of an HTTP/2 connection, if the peer allows as many; 0:
                                 100 */
        /* HTTP/2: if requests are in flight and nothing was received for so long, a PING is sent, which must
         * be answered in the same time; 0: 10 s */
        usec ping_after;
        /* the client never sends a request again once a byte of it was written */
        bool once;
        bool compress; /* bodies above 1 KiB are sent as gzip if that is smaller */
        struct http_tls tls;
        struct http_proxy proxy;
        const struct http_settings *settings; /* NULL: errors name no setting */
};
int http_target_new(struct http_target **, struct http_client *, const struct http_target_config *,
                    struct error *) MUST_CHECK;
struct http_target *http_target_free(struct http_target *); /* no request may be in flight; NULL is fine */
uint32_t http_target_connections(const struct http_target *);
/* How long connecting may take from now on. */
void http_target_connect_within(struct http_target *, usec);
/* Certificates or keys have changed: replaces every connection. An old one closes once its successor is
 * connected and it has no requests left. The client does so itself when it notices, before a new connection,
 * that a file has changed. */
void http_target_refresh(struct http_target *);

struct http http_client_port(struct http_client *);

/* The first header of that name in an answer; n 0: absent. */
struct str http_answer_header(const struct http_request *, struct str name);
