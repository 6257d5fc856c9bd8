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
        struct list_node node;   /* of the client: spare; of its target: it waits for a connection */
        struct list_node beside; /* of its connection's */
        struct http_client *client;
        struct http_target *target;
        struct http_request *request;  /* its owner's */
        struct connection *connection; /* NULL while it waits */
        struct list_node awaits;       /* of the target's: sent whole, the answer is not there */
        struct list_node stalls; /* of the client's: its answer is large, and there is no room for it yet */
        usec answer_by;          /* once it awaits the answer */
        struct buf *message;     /* what is sent: the caller's, or packed */
        size_t headroom;         /* where the body begins */
        size_t start, sent;      /* where the head begins; how far it was written */
        size_t own;              /* where the header lines of this request begin */
        size_t method_n, path_n;
        uint64_t heard, sent_before; /* bytes its connection had read and sent when it began */
        int32_t stream;
        uint8_t again; /* times that it was sent again */
        bool done;
        /* of the client's for large answers, its own until the answer was used; 0: none */
        size_t room;
        /* HTTP/2: bytes of a stalled answer that its window was not opened for */
        size_t unread;
        bool head_only;                /* HEAD: no body follows */
        bool written;                  /* a byte of it may have reached the peer */
        bool reused;                   /* its connection had carried an answer before */
        bool answering;                /* HTTP/2: the final head has come */
        usec began;                    /* HTTP/2 */
        const char *fault;             /* HTTP/2: why we reset it */
        struct buf head, body, packed; /* kept for the next exchange */
        struct json_pick pick;         /* of the answer; begun where the target names a member */
};

/* How a connection frames. Each but resume may end the connection: it is not touched after a call. */
struct framing {
        int (*open)(struct connection *, struct error *); /* the socket is connected; room is set */
        void (*close)(struct connection *);               /* frees what it keeps */
        /* the exchange is on the connection's list already */
        void (*start)(struct connection *, struct exchange *);
        void (*cancel)(struct connection *, struct exchange *); /* it is not on the list any more */
        void (*event)(struct connection *, int events);         /* of the socket */
        /* the exchange may take a large answer now */
        void (*resume)(struct connection *, struct exchange *);
};
extern const struct framing http1_framing, http2_framing;

/* where the name points, or pointed while connections still go there */
struct address {
        struct list_node node;
        char text[INET6_ADDRSTRLEN];
        uint32_t connections;
        bool listed;               /* in the last answer */
        usec avoid_until, backoff; /* after a failure to connect */
};

struct connection {
        struct list_node node, ready; /* of the target: all; those with room */
        struct http_target *target;
        const struct framing *framing; /* NULL while connecting */
        struct list exchanges;         /* the oldest first */
        uint32_t carried, room;        /* exchanges, and how many there may be */
        bool old;                      /* to be retired when its successor stands */
        bool retiring;                 /* finishes what it carries, then closes */
        bool used;                     /* carried an answer already */
        /* reads on: TLS holds bytes that the socket does not show */
        struct task more;
        /* read until there is no more: an error may stand behind the last bytes, and is told once */
        bool drain;
        struct address *address;
        /* while curl connects; then NULL: from there on the socket is ours alone */
        CURL *easy;
        struct curl_slist *connect_to;
        SSL *ssl; /* NULL: none */
        bool tls_broken;
        struct loop_io *io;
        int fd;               /* -1: not connected yet */
        usec connect_by;      /* the end of connecting, with TLS */
        uint64_t heard, sent; /* bytes read; written, without what TLS adds */
        usec heard_at;        /* HTTP/2: when bytes came last */
        /* HTTP/1.1: when it was ready for a request, or was found silent */
        usec idle_since;
        usec expires; /* 0: never */
        struct http_codec *http1;
        struct http2 *http2;
        char reason[CURL_ERROR_SIZE]; /* why the last call failed */
};

struct http_target {
        struct http_client *client;
        struct http_target_config config;      /* its texts are copies */
        char *url_text, *method, *connect_url; /* connect_url: name and port, for curl */
        char *tls_name;                        /* NULL: no TLS */
        char *host;                            /* that is connected to: the URL's or the proxy's */
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
        struct list connections, ready; /* all; those with room, the next one to be used first */
        uint32_t connections_n, connecting_n, old_n, retiring_n;
        bool multiplexes; /* the last connection spoke HTTP/2 */
        bool known;       /* there was a last connection */
        /* that HTTP/2 connections carry, as the last one's peer told */
        uint32_t streams;
        struct list waiting; /* exchanges, for a connection */
        bool serving, serve_again;
        struct list addresses;
        size_t addresses_n;             /* that are listed */
        usec addresses_until, asked_at; /* good until; when the last question was put */
        usec resolve_by;                /* what waits for the answer waits no longer */
        usec ask_at;                    /* before they run out, when in use; USEC_NEVER: not */
        /* when another try is made to replace old connections; USEC_NEVER: not */
        usec replace_at;
        uint32_t failures; /* to connect, in a row */
        bool resolving, used, numeric;
        struct tls_client *tls; /* NULL: not made yet, or its files have changed */
        struct watch files[3];  /* of certificates: those that are named */
        uint64_t files_seen[3];
        struct task timer;
        struct list awaiting; /* exchanges, the first one sent first: all are given the same time */
        struct task answer_timer;
        /* for the first one's time, or an earlier one's that is answered */
        bool answer_armed;
};

struct http_client {
        struct loop *loop;
        struct http_multi *multi;
        struct resolver *resolver;
        struct random random;
        char *space; /* what was read last */
        z_stream packer;
        bool packs; /* packer is set up */
        struct tls_authorities authorities;
        struct list spare;            /* exchanges */
        size_t large_max, large_held; /* bytes that large answers may take; 0: no limit */
        struct list stalled;          /* exchanges, the one that waits longest first */
};

static inline struct exchange *connection_first(const struct connection *c)
{
        return LIST_FIRST(&c->exchanges, struct exchange, beside);
}

/* client.c: exchanges */
void exchange_answer(struct exchange *, int status); /* head and body are in place */
void exchange_fail(struct exchange *, const struct error *);
/* So many bytes of the answer have come. False: it may have no more until framing.resume is called. */
bool exchange_takes(struct exchange *, size_t body);

/* pool.c */
/* gives waiting exchanges to connections, opens more when there are too few */
void pool_serve(struct http_target *);
/* that a request may go out on now; NULL: none */
struct connection *pool_ready(struct http_target *);
void pool_start(struct connection *, struct exchange *);
/* the last byte of it was written: the time for the answer runs */
void pool_sent(struct exchange *);
void pool_wait(struct exchange *, bool first); /* queues it for a connection */
void pool_forget(struct exchange *);           /* takes it out of that queue */
void pool_fail_waiting(struct http_target *, const struct error *, bool one);
void connection_drop(struct connection *, struct exchange *); /* takes an exchange off its connection */
/* after room or carried changed; false: it was closed, having nothing left to do */
bool connection_place(struct connection *);
void connection_stop(struct connection *); /* no more exchanges; it stays for now */
/* the same, and it closes when it carries none: it may be gone afterwards */
void connection_retire(struct connection *);
/* ends it; what it carried is sent again or fails */
void connection_break(struct connection *, const struct error *);
void connection_free(struct connection *);
void pool_connected(struct connection *); /* framing is chosen and open */
/* the connection is gone already */
void pool_refused(struct http_target *, struct address *, const struct error *);
void target_arm(struct http_target *);
void target_turn(struct task *, usec now);
void target_answers_turn(struct task *, usec now);

/* connect.c */
int connection_open(struct http_target *, struct address *, struct error *) MUST_CHECK;
void on_connected(void *cookie, CURL *, CURLcode);
/* Never wait: IO_AGAIN. Else how much; read, 0: the peer has ended. IO_BROKEN: connection_error says why. */
enum { IO_AGAIN = TLS_AGAIN, IO_BROKEN = TLS_BROKEN };
ssize_t connection_read(struct connection *, char *space, size_t size);
ssize_t connection_write(struct connection *, const char *, size_t size);
void connection_error(struct connection *, struct error *);
/* TLS took too long: it is gone afterwards */
void connection_too_late(struct connection *);
uint64_t connection_sent(const struct connection *); /* bytes written to the socket */
/* Nothing that was written after `since` (connection_sent) has been acknowledged by the peer's system: its
 * program has not seen it. Once the peer has ended; false where nobody can tell, since a proxy stands
 * between. */
bool connection_unseen(const struct connection *, uint64_t since);
/* What one turn may read, so that a peer that sends without end takes its turn like all others. */
struct turn {
        size_t bytes;
        unsigned reads;
};
/* n more were read; true: the rest comes in the next pass */
bool connection_had_enough(struct connection *, struct turn *, size_t n);
/* TLS holds bytes that the socket does not show */
bool connection_buffers(const struct connection *);
int files_watch(struct http_target *, struct error *) MUST_CHECK;
bool files_changed(struct http_target *); /* since it was last asked */
void files_forget(struct http_target *);

/* addresses.c */
void addresses_ask(struct http_target *);
bool addresses_awaited(const struct http_target *);   /* requests wait for them alone */
void addresses_too_late(struct http_target *);        /* fails those; the question stands */
struct address *addresses_pick(struct http_target *); /* NULL: none is known */
bool addresses_others(const struct http_target *);    /* there is one that is not passed over */
void addresses_failed(struct http_target *, struct address *);
void addresses_leave(struct address *); /* one connection less goes there */
void addresses_free(struct http_target *);

/* http2.c */
int http2_fields(struct http_target *, struct error *) MUST_CHECK; /* the constant ones */
