/* Inside pkg/http/client: targets, their connections, and the exchanges that these carry. client.c has
 * targets and exchanges, pool.c decides which connection carries what, connect.c makes connections,
 * addresses.c knows where to, http1.c and http2.c frame. Loop's thread. */
#pragma once

#include <curl/curl.h>
#include <netinet/in.h>
#include <nghttp2/nghttp2.h>
#include <zlib.h>

#include "base/list.h"
#include "base/random.h"
#include "http/client/client.h"
#include "http/wire/codec.h"
#include "http/client/multi.h"
#include "http/client/resolver.h"
#include "base/watch.h"
#include "http/client/tls_client.h"

enum { READ_SIZE = 65536, ANSWER_HEAD_MAX = 65536 };

struct connection;
struct exchange {
        struct list_node node;   /* in the client's list of spare exchanges, or in its target's of those that
                                    wait for a connection */
        struct list_node beside; /* in its connection's list */
        struct http_client *client;
        struct http_target *target;
        struct http_request *request;  /* the caller's */
        struct connection *connection; /* NULL while it waits */
        struct list_node awaits; /* in the target's list of those that were sent and are not answered yet */
        struct list_node stalls; /* in the client's list of those whose large answer waits for memory */
        usec answer_by;          /* deadline of the answer, once it was sent */
        struct buf *message;     /* what is sent: the caller's message, or packed */
        size_t headroom;         /* where the body begins */
        size_t start, sent;      /* offsets: where the head begins, how far it was written */
        size_t own;              /* offset of the request's own header lines */
        size_t method_n, path_n;
        uint64_t heard, sent_before; /* bytes that its connection had received and sent before it */
        int32_t stream;
        uint8_t again; /* how often it was sent again */
        bool done;
        /* bytes of the client's limit for large answers that it holds until its answer is released; 0: none
         */
        size_t room;
        /* HTTP/2: bytes of a stalled answer for which the stream's window was not opened again */
        size_t unread;
        uint64_t body_n;               /* HTTP/2: bytes of the answer's body, kept or not */
        bool head_only;                /* HEAD: no body follows */
        bool written;                  /* the peer may have received a byte of it */
        bool reused;                   /* its connection had carried an answer before */
        bool answering;                /* HTTP/2: the final head has come */
        usec began;                    /* HTTP/2 */
        const char *fault;             /* HTTP/2: why we reset its stream */
        struct buf head, body, packed; /* kept for the next exchange */
        struct json_pick pick;         /* extracts the member that the target names from the answer */
};

/* How a connection frames messages. Any function but resume may close the connection: do not touch it after
 * the call. */
struct framing {
        int (*open)(struct connection *, struct error *); /* the socket is connected; sets room */
        void (*close)(struct connection *);               /* frees what it keeps */
        /* the exchange is on the connection's list already */
        void (*start)(struct connection *, struct exchange *);
        void (*cancel)(struct connection *, struct exchange *); /* it is not on the list any more */
        void (*event)(struct connection *, int events);         /* of the socket */
        /* there is memory now for the exchange's large answer */
        void (*resume)(struct connection *, struct exchange *);
};
extern const struct framing http1_framing, http2_framing;

/* an address of the host; kept after it has left the DNS answer while it has connections */
struct address {
        struct list_node node;
        char text[INET6_ADDRSTRLEN];
        uint32_t connections;
        bool listed;               /* it was in the last DNS answer */
        usec avoid_until, backoff; /* after a failure to connect */
};

struct connection {
        struct list_node node, ready; /* in the target's lists: of all, and of those with room */
        struct http_target *target;
        const struct framing *framing; /* NULL while connecting */
        struct list exchanges;         /* the oldest first */
        uint32_t carried, room;        /* number of exchanges, and their limit */
        bool old;                      /* retire it once its successor is connected */
        bool retiring;                 /* takes no new exchanges; closes after its last one */
        bool used;                     /* has carried an answer */
        /* reads on, since TLS has buffered bytes that poll does not report */
        struct task more;
        /* read until EOF: bytes may stand before an error, which the socket reports only once */
        bool drain;
        struct address *address;
        /* while curl connects; NULL afterwards, when the socket is ours alone */
        CURL *easy;
        struct curl_slist *connect_to;
        SSL *ssl; /* NULL: none */
        bool tls_broken;
        struct loop_io *io;
        int fd;               /* -1: not connected yet */
        usec connect_by;      /* deadline for connecting, TLS included */
        uint64_t heard, sent; /* bytes read; written, without what TLS adds */
        usec heard_at;        /* HTTP/2: when bytes were received last */
        /* HTTP/1.1: when it became idle, or was last checked for unexpected input */
        usec idle_since;
        usec kept;    /* HTTP/1.1: how long it is used again after it became idle; 0: as long as it is open */
        usec expires; /* 0: never */
        struct http_codec *http1;
        struct http2 *http2;
        char reason[CURL_ERROR_SIZE]; /* why connecting, reading or writing failed last */
};

struct http_target {
        struct http_client *client;
        struct http_target_config config;      /* its strings are copies */
        char *url_text, *method, *connect_url; /* connect_url: name and port, for curl */
        char *tls_name;                        /* NULL: no TLS */
        char *host;                            /* the host we connect to: the URL's or the proxy's */
        uint16_t port;
        bool proxied;
        struct url url, proxy_url;
        struct buf proxy_user, proxy_password; /* as last read */
        struct buf head;                       /* request line, Host, constant headers */
        size_t line_n;                         /* of it, the request line */
        /* the same for HTTP/2: method, scheme, authority and path first */
        nghttp2_nv *fields;
        size_t fields_n;
        struct buf field_text;
        struct list connections, ready; /* all; those with room, in the order in which they are used */
        uint32_t connections_n, connecting_n, old_n, retiring_n;
        bool multiplexes; /* the last connection spoke HTTP/2 */
        bool known;       /* there was a last connection */
        /* streams that an HTTP/2 connection may carry, as the peer told on the last one */
        uint32_t streams;
        usec try_at;         /* when another connection is tried though the peer takes no request */
        struct list waiting; /* exchanges that wait for a connection */
        bool serving, serve_again;
        struct list addresses;
        size_t addresses_n;             /* those in the last DNS answer */
        usec addresses_until, asked_at; /* when the addresses expire; when DNS was asked last */
        usec resolve_by;                /* what waits for DNS fails then */
        usec ask_at; /* when to ask DNS again, before they expire; USEC_NEVER: the target is not in use */
        /* when to try again to replace old connections; USEC_NEVER: there is nothing to replace */
        usec replace_at;
        uint32_t failures; /* failed attempts to connect in a row */
        bool resolving, used, numeric;
        struct tls_client *tls; /* NULL: not made yet, or its files have changed */
        struct watch files[3];  /* the certificates' files, as far as the target has any */
        uint64_t files_seen[3];
        struct task timer;
        struct list awaiting; /* exchanges in the order in which they were sent, which is that of their
                                 deadlines */
        struct task answer_timer;
        /* for the first deadline, or for an earlier one of an exchange that has been answered */
        bool answer_armed;
};

struct http_client {
        struct loop *loop;
        struct http_multi *multi;
        struct resolver *resolver;
        struct random random;
        char *space; /* buffer for what is read */
        z_stream packer;
        bool packs; /* packer is initialized */
        struct tls_authorities authorities;
        struct list spare;            /* exchanges */
        size_t spare_bytes;           /* of their buffers */
        size_t large_max, large_held; /* bytes that large answers may take; 0: no limit */
        struct list stalled;          /* exchanges, the longest-waiting first */
};

static inline struct exchange *connection_first(const struct connection *c)
{
        return LIST_FIRST(&c->exchanges, struct exchange, beside);
}

/* client.c: exchanges */
void exchange_answer(struct exchange *, int status); /* the answer's head and body are complete */
void exchange_fail(struct exchange *, const struct error *);
/* So many bytes of the answer's body are kept. False: stop reading it until framing.resume is called. */
bool exchange_takes(struct exchange *, size_t body);

/* pool.c */
/* gives waiting exchanges to connections, opens more when there are too few */
/* The peer has said that it takes no request for now. */
void pool_hold_off(struct http_target *);
void pool_serve(struct http_target *);
/* one that can take a request now; NULL: there is none */
struct connection *pool_ready(struct http_target *);
void pool_start(struct connection *, struct exchange *);
/* its last byte was written: starts the timer for the answer */
void pool_sent(struct exchange *);
void pool_wait(struct exchange *, bool first); /* queues it for a connection */
void pool_forget(struct exchange *);           /* takes it out of that queue */
void pool_fail_waiting(struct http_target *, const struct error *, bool one);
void connection_drop(struct connection *, struct exchange *); /* takes an exchange off its connection */
/* call after room or carried changed; false: it was idle and retiring, and has been closed */
bool connection_place(struct connection *);
void connection_stop(struct connection *); /* it takes no more exchanges, and stays open for now */
/* the same, and closes it once it has none: it may be gone afterwards */
void connection_retire(struct connection *);
/* closes it; its exchanges are sent again or fail */
void connection_break(struct connection *, const struct error *);
void connection_free(struct connection *);
void pool_connected(struct connection *); /* framing is chosen and open */
/* after the connection was closed */
void pool_refused(struct http_target *, struct address *, const struct error *);
void target_arm(struct http_target *);
void target_turn(struct task *, usec now);
void target_answers_turn(struct task *, usec now);

/* connect.c */
int connection_open(struct http_target *, struct address *, struct error *) MUST_CHECK;
void on_connected(void *cookie, CURL *, CURLcode);
/* These never block: IO_AGAIN instead. Otherwise the number of bytes; 0 from read: the peer has closed.
 * IO_BROKEN: see connection_error. */
enum { IO_AGAIN = TLS_AGAIN, IO_BROKEN = TLS_BROKEN };
ssize_t connection_read(struct connection *, char *space, size_t size);
ssize_t connection_write(struct connection *, const char *, size_t size);
void connection_error(struct connection *, struct error *);
/* the TLS handshake took too long: closes it */
void connection_too_late(struct connection *);
uint64_t connection_sent(const struct connection *); /* bytes written to the socket so far */
/* True if the peer's system has acknowledged nothing that was written after `since` (a value of
 * connection_sent), so that its program cannot have seen it. For a connection that the peer has closed; false
 * where it can't be known, since a proxy stands between. */
bool connection_unseen(const struct connection *, uint64_t since);
/* Limits what one turn reads, so that a peer that sends without end does not starve the others. */
struct turn {
        size_t bytes;
        unsigned reads;
};
/* n more bytes were read; true: go on in the next pass */
bool connection_had_enough(struct connection *, struct turn *, size_t n);
/* TLS has buffered bytes that poll does not report */
bool connection_buffers(const struct connection *);
int files_watch(struct http_target *, struct error *) MUST_CHECK;
bool files_changed(struct http_target *); /* since the last call */
void files_forget(struct http_target *);

/* addresses.c */
void addresses_ask(struct http_target *);
bool addresses_awaited(const struct http_target *);   /* requests wait for them alone */
void addresses_too_late(struct http_target *);        /* fails those; the question stands */
struct address *addresses_pick(struct http_target *); /* NULL: none is known */
bool addresses_others(const struct http_target *);    /* there is one that is not being avoided */
void addresses_failed(struct http_target *, struct address *, bool silent);
void addresses_leave(struct address *); /* a connection to it was closed */
void addresses_free(struct http_target *);

/* http2.c */
int http2_fields(struct http_target *, struct error *) MUST_CHECK; /* makes the constant header fields */
