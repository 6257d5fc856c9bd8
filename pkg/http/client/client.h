/* The way out: a pool of connections per target. libcurl connects (addresses, proxies) and hands over the
 * socket, OpenSSL encrypts, llhttp or nghttp2 frames; over HTTP/1.1 a request is one write and one read at
 * best, over HTTP/2 many requests share one write. One client per process, on its loop's thread. It
 * implements port/http.h.
 *
 * When a request is sent twice by the client itself: only while it surely was not processed. That is, no byte
 * of it was written, REFUSED_STREAM, a stream above GOAWAY's last; or, once, when a connection that had
 * carried answers ends without one byte of an answer and the peer's system has acknowledged nothing of the
 * request: the race of an idle connection that its server closes. Of the last kind nothing is repeated
 * through a proxy, which acknowledges for itself, nor where the target says `once`. */
#pragma once

#include "base/loop.h"
#include "http/wire/url.h"
#include "port/http.h"

struct http_client;

int http_client_new(struct http_client **, struct loop *, struct error *) MUST_CHECK;
/* Asks these name servers ("ADDRESS[:PORT],…") instead of the system's. */
int http_client_use_servers(struct http_client *, const char *servers, struct error *) MUST_CHECK;
/* Answers above 256 KiB take turns: those that are read at the same time, or wait to be used, may be so large
 * together; the others' sockets are not read meanwhile. 0, as at first: no limit. */
void http_client_limit_answers(struct http_client *, size_t bytes);
/* after its targets and requests; NULL is fine */
struct http_client *http_client_free(struct http_client *);

enum http_version {
        HTTP_1_1,
        HTTP_AUTO,              /* HTTP/2 where TLS is spoken and the peer agrees (ALPN), else HTTP/1.1 */
        HTTP_2_PRIOR_KNOWLEDGE, /* HTTP/2 from the first byte, with and without TLS */
};

/* Zero means the system's authorities, the URL's name, no certificate of our own. Files are read for each new
 * connection. */
struct http_tls {
        /* authorities that are trusted, and no others; n 0: those of ca_file */
        struct str ca_pem;
        const char *ca_file;          /* NULL: the system's */
        const char *client_cert_file; /* PEM; NULL: none */
        const char *client_key_file;  /* PEM; NULL: in the certificate's file */
        /* the name that is asked for and that the certificate must bear; NULL: the URL's host */
        const char *server_name;
        bool any_host; /* do not compare names: verify_host is on by default */
};

/* What the user calls the settings that a target was made of, so that its errors can say which to look at:
 * constants, borrowed. NULL members: nothing is said. */
struct http_settings {
        const char *ca, *client_cert, *any_host, *proxy; /* any_host: with the value that sets it */
};

/* Requests go through a tunnel that the proxy opens (CONNECT), with and without TLS; it also resolves the
 * name. */
struct http_proxy {
        /* "http://host:port"; n 0: none. The environment's is never used */
        struct str url;
        /* NULL: none. Read for each new connection; a file that is gone leaves the last value */
        const char *user_file, *password_file;
        struct str no_proxy; /* comma separated: host, .domain, ADDRESS, ADDRESS/BITS or "*" */
};

/* Copied by http_target_new. Members that are zero mean what is noted, and HTTP/1.1 without any of it. */
struct http_target_config {
        struct str url;
        const char *method;       /* NULL: POST */
        struct str headers;       /* constant "Name: value\r\n" lines */
        uint32_t max_connections; /* while they are replaced there may be more for a moment */
        usec connect_timeout;
        /* from the end of the request to the end of its answer; 0: no limit */
        usec response_timeout;
        /* of a connection, less up to a quarter of jitter: new pods get their share; 0: no limit */
        usec max_age;
        size_t answer_max; /* bytes of an answer's body that are kept */
        /* borrowed; of an answer that is a JSON object this member comes whole, however long the rest is;
         * NULL: none */
        const char *answer_member;
        enum http_version http_version;
        uint32_t max_streams; /* of an HTTP/2 connection, within the peer's bound; 0: 100 */
        /* HTTP/2: with requests in flight and nothing heard for so long the peer is asked, and has as long to
         * answer; 0: 10 s */
        usec ping_after;
        /* a request of which a byte was written is never sent again by the client */
        bool once;
        bool compress; /* bodies above 1 KiB leave as gzip when that makes them smaller */
        struct http_tls tls;
        struct http_proxy proxy;
        const struct http_settings *settings; /* NULL: nothing is said of any */
};
int http_target_new(struct http_target **, struct http_client *, const struct http_target_config *,
                    struct error *) MUST_CHECK;
struct http_target *http_target_free(struct http_target *); /* nothing may be under way; NULL is fine */
uint32_t http_target_connections(const struct http_target *);
/* Certificates or keys have changed: every connection is replaced, each closed when its successor stands and
 * it carries nothing. Happens by itself when a new connection finds that a file was changed. */
void http_target_refresh(struct http_target *);

struct http http_client_port(struct http_client *);

/* The first header of that name in an answer; n 0: absent. */
struct str http_answer_header(const struct http_request *, struct str name);
