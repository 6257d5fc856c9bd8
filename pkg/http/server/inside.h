/* Inside pkg/http/server: connections, and what each holds while it serves a request. */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#define HASH_NONFATAL_OOM 1 /* if an insert finds no memory the item is not in the table: hh.tbl is NULL */
#include "base/table.h"
#include "http/server/forwarded.h"
#include "http/server/server.h"
#include "http/server/tls_server.h"

enum {
        READ_SIZE = 65536,
        UNSENT_MAX = 65536,      /* bytes of unsent answers above which the next request waits */
        PIPELINE_MAX = 65536,    /* bytes of waiting requests above which no more is read */
        COPY_MAX = 16384,        /* an answer's body up to this is copied behind its head */
        KEEP_MAX = 16384,        /* a buffer up to this is kept for the next request */
        SPARE_MAX = 64,          /* how many works are kept for the next request */
        READS_MAX = 16,          /* reads from one connection in a pass */
        REQUESTS_IN_A_TURN = 16, /* requests of one connection before the others have their turn */
        /* connections served in a pass, so that functions' answers are handled in between, however many
           clients there are */
        EVENTS_IN_A_PASS = 32,
};

/* What OpenSSL takes for a client, as measured: while it shakes hands, of what hello.h and tls_server.c let
 * pass, and afterwards. */
enum { SHAKING_BYTES = 64 * 1024, SESSION_BYTES = 15 * 1024 };

/* What a connection holds from the first byte of a request until its answer is sent; an idle connection has
 * none. */
struct work {
        struct work *next; /* in the server's list of spare works */
        struct http_intake intake;
        struct buf in;   /* read from the socket, not parsed yet */
        size_t fed;      /* bytes of in that were parsed */
        struct buf out;  /* answers to be sent */
        struct buf body; /* the last answer's body, taken over from the handler; sent after out */
        size_t sent;     /* bytes sent of out and body together */
        size_t held;     /* bytes that the handler holds for the request */
        size_t size;     /* its bytes as the server counted them, held included */
};

enum phase {
        PHASE_HANDSHAKE,
        PHASE_IDLE,
        PHASE_HEAD,
        PHASE_BODY,
        PHASE_HANDLING,  /* the handler has the request */
        PHASE_ANSWERING, /* the client does not take the answer at once */
        /* lingers: reads and drops what still comes for a moment, or the kernel would reset the connection
           and destroy the answer */
        PHASE_LINGERING,
};

/* Memory that the connections of one peer hold; an IPv6 peer is a /64. */
struct share {
        UT_hash_handle hh;
        uint8_t peer[16];
        size_t bytes;
        uint32_t calls;
};

/* Connections that wait for their clients, those without a sign of life for longest first. */
struct quiet_list {
        struct http_call *first, *last;
};
enum {
        QUIET_IDLE,
        QUIET_UNFINISHED, /* in the middle of a request */
        QUIET_ANSWERING,  /* in the middle of an answer that the client takes slowly */
        QUIET_LISTS,
        NOT_QUIET = QUIET_LISTS
};

struct http_call { /* a connection; it serves one request at a time */
        struct http_call *next, *previous;
        struct http_server *server;
        struct loop_io *io;
        SSL *tls;          /* NULL: plain */
        struct work *work; /* NULL: idle */
        void *user;
        struct task timer;
        usec since, deadline; /* of the current phase */
        size_t moved;         /* bytes moved in this phase, which extend its deadline */
        size_t session;       /* bytes of tls, as they are counted */
        int fd;
        uint32_t requests;
        uint32_t turn_from; /* the value of requests when its turn began */
        enum phase phase;
        uint8_t peer[16];
        struct share *share; /* NULL: there was no memory for it */
        struct http_call *quieter, *louder;
        usec heard;
        uint8_t quiet; /* which list of quiet connections it is in */
        bool in_loop;  /* call_work is running and will finish what is due */
        bool broken;   /* found broken while it runs: close it then */
        bool closing;  /* close when the answer was sent */
        /* and linger before that; also if more was sent behind the last request */
        bool linger;
        bool ended;  /* the client has closed its sending side */
        bool left;   /* the client left while the handler worked */
        bool paused; /* not reading */
        /* requests that were read wait for the next pass, and nothing is read before */
        bool yields;
        bool again;   /* TLS may have buffered bytes that poll does not report */
        bool surplus; /* it is above max_connections */
        bool busy;    /* counted in busy_n */
};

struct http_server {
        struct loop *loop;
        struct http_server_config config;
        struct tls_server *tls;
        struct network *trusted;
        struct http_limits limits;
        int fd;
        uint16_t port;
        struct loop_io *io;
        struct loop_crowd *crowd; /* the connections' descriptors */
        struct http_call *calls;
        struct quiet_list quiet[QUIET_LISTS];
        struct share *shares;
        uint32_t calls_n, surplus_n, busy_n, spare_n;
        struct work *spare;
        size_t sessions; /* bytes of TLS, which are in stats.buffered, too */
        bool draining, lingering;
        struct task accept_again, linger_end;
        usec accepted_at;
        struct http_server_stats stats;
        usec date_until;
        char date[40]; /* "Date: …\r\n" */
        char space[READ_SIZE];
};

/* call.c */
void call_phase(struct http_call *, enum phase);
void call_close(struct http_call *);
void call_refuse(struct http_call *, enum http_refusal, const char *why); /* the call may be gone */
/* a new connection; the call may be gone */
void call_begin(struct http_call *);
bool call_has_input(const struct http_call *); /* the socket has unread bytes */
void call_event(void *call, int events);
void works_free(struct http_server *);

/* room.c: which connection gives way when connections or memory run short */
void room_join(struct http_call *);
void room_leave(struct http_call *);
void room_follow(struct http_call *); /* its phase has changed */
void room_heard(struct http_call *);  /* its body or its answer makes progress, fast enough */
void room_count(struct http_call *, size_t before, size_t after); /* bytes in memory */
void room_session(struct http_call *, size_t bytes);              /* so many of TLS are */
/* For one more client that shakes hands: closes quiet connections of TLS. False: that was not enough, and
 * they have a quarter of the memory already, which requests do not keep them out of. */
bool room_for_session(struct http_server *);
/* above max_connections: closes a quiet connection. False: there is none */
bool room_for_connection(struct http_server *);
/* connections or memory for one more run short, but the sockets of quiet connections have unread bytes */
bool room_may_come(const struct http_server *);
/* Closes quiet connections of TLS, then refuses unfinished requests and cuts off unread answers of peers that
 * hold more than the call's peer, until memory is at most that large. False: that was not enough. */
bool room_for_bytes(struct http_call *, size_t most);

/* answer.c */
void answer_head(struct http_call *, int status, struct str content_type, struct str headers, size_t body,
                 bool keep);
bool answer_has_body(const struct http_call *, int status);
