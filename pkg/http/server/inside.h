/* Inside pkg/http/server: its connections and what they hold while they are at work. */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#define HASH_NONFATAL_OOM 1 /* what finds no memory is not in its table: hh.tbl is NULL */
#include "base/table.h"
#include "http/server/forwarded.h"
#include "http/server/server.h"
#include "http/server/tls_server.h"

enum {
        READ_SIZE = 65536,
        UNSENT_MAX = 65536,      /* of answers, past which the next request waits */
        PIPELINE_MAX = 65536,    /* bytes of requests that wait, past which no more is read */
        COPY_MAX = 16384,        /* a body up to this goes with its head into one piece */
        KEEP_MAX = 16384,        /* a buffer up to this is kept for the next request */
        SPARE_MAX = 64,          /* works kept for the next request */
        READS_MAX = 16,          /* of one connection in a pass */
        REQUESTS_IN_A_TURN = 16, /* of one connection; then the others have theirs */
        /* connections that have their turn: answers of functions come between, however many callers there are
         */
        EVENTS_IN_A_PASS = 32,
};

/* What a connection holds from a request's first byte until its answer is out; an idle one holds nothing. */
struct work {
        struct work *next; /* in the server's spare ones */
        struct http_intake intake;
        struct buf in;   /* read, and not yet fed */
        size_t fed;      /* of it */
        struct buf out;  /* answers */
        struct buf body; /* of the last one, taken from the handler; behind out */
        size_t sent;     /* of out and body together */
        size_t held;     /* by the handler, for the request */
        size_t size;     /* as counted by the server, held among it */
};

enum phase {
        PHASE_HANDSHAKE,
        PHASE_IDLE,
        PHASE_HEAD,
        PHASE_BODY,
        PHASE_HANDLING,  /* the handler has the request */
        PHASE_ANSWERING, /* the client does not take the answer at once */
        /* what still comes is read and dropped for a moment, or the kernel would reset the answer away */
        PHASE_LINGERING,
};

/* What one peer's connections hold; of IPv6 the first 64 bits are one peer. */
struct share {
        UT_hash_handle hh;
        uint8_t peer[16];
        size_t bytes;
        uint32_t calls;
};

/* Connections that wait for their clients, the one heard of longest ago first. */
struct quiet_list {
        struct http_call *first, *last;
};
enum { QUIET_IDLE, QUIET_UNFINISHED /* in the middle of a request */, QUIET_LISTS, NOT_QUIET = QUIET_LISTS };

struct http_call { /* a connection; at most one request of it is worked on */
        struct http_call *next, *previous;
        struct http_server *server;
        struct loop_io *io;
        SSL *tls;          /* NULL: plain */
        struct work *work; /* NULL: idle */
        void *user;
        struct task timer;
        usec since, deadline; /* of the phase */
        size_t moved;         /* bytes in this phase, which buy time */
        int fd;
        uint32_t requests;
        uint32_t turn_from; /* what requests was when its turn began */
        enum phase phase;
        uint8_t peer[16];
        struct share *share; /* NULL: memory was out */
        struct http_call *quieter, *louder;
        usec heard;
        uint8_t quiet; /* the list it is in */
        bool in_loop;  /* call_work is on the stack and looks after the rest */
        bool broken;   /* found while it is: close */
        bool closing;  /* once the answer is out */
        /* and then PHASE_LINGERING; also where more was sent behind the last request */
        bool linger;
        bool ended;  /* the client sends no more */
        bool left;   /* the client went away while the handler worked */
        bool paused; /* nothing is read */
        /* requests wait that were read: they go on in the next pass, and nothing is read until then */
        bool yields;
        bool again;   /* there may be more to read that the socket does not tell of */
        bool surplus; /* past max_connections */
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
bool call_has_input(const struct http_call *); /* something lies in the socket */
void call_event(void *call, int events);
void works_free(struct http_server *);

/* room.c: who makes room for whom */
void room_join(struct http_call *);
void room_leave(struct http_call *);
void room_follow(struct http_call *);                             /* its phase has changed */
void room_heard(struct http_call *);                              /* its body goes on, fast enough */
void room_count(struct http_call *, size_t before, size_t after); /* bytes in memory */
/* past max_connections: one that is quiet is closed. False: none is */
bool room_for_connection(struct http_server *);
/* none is yet, but what lies in the sockets of quiet ones was not read yet */
bool room_may_come(const struct http_server *);
/* Refuses unfinished requests of whoever holds more than the call's peer, until no more than that is in
 * memory. False: that is not enough. */
bool room_for_bytes(struct http_call *, size_t most);

/* answer.c */
void answer_head(struct http_call *, int status, struct str content_type, struct str headers, size_t body,
                 bool keep);
bool answer_has_body(const struct http_call *, int status);
