/* What the source and its driver say to each other. The driver is the only part that
 * knows libmongoc. It is a shared object of its own, since that library brings some 30 MB along that only
 * those should pay who use it; so it uses nothing of the program, and both sides know this header alone.
 *
 * A client belongs to whoever calls for it, one thread at a time, and its functions block. What can be done
 * from another thread is to cut its line: whatever it is in ends with DDS_FAULT_CUT soon. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Grows with each change of what stands here. */
enum { DDS_DRIVER_VERSION = 1 };
#define DDS_DRIVER_FILE "sluice-dds.so"
#define DDS_DRIVER_SYMBOL "sluice_dds_driver"

enum dds_fault_kind {
        DDS_FAULT_NONE,
        DDS_FAULT_CUT,     /* the line was cut */
        DDS_FAULT_NAME,    /* a host's name is not known */
        DDS_FAULT_CONNECT, /* nobody answers there */
        DDS_FAULT_PRIMARY, /* they answer, but none is the primary of what was asked for */
        DDS_FAULT_TLS,
        DDS_FAULT_SERVER,  /* the server says so: code */
        DDS_FAULT_NETWORK, /* a connection broke */
        DDS_FAULT_USER,    /* who we are can't be shown, or is not believed */
        DDS_FAULT_CONFIG,  /* what was asked for makes no sense to the driver */
        DDS_FAULT_MEMORY,
        DDS_FAULT_OTHER,
};
struct dds_fault {
        enum dds_fault_kind kind;
        int code;       /* the server's; 0: none */
        char where[96]; /* HOST:PORT; "": not known */
        char text[320]; /* in the server's or the library's words */
};

/* Bytes that are not terminated. */
struct dds_bytes {
        const void *p;
        size_t n;
};
/* Of the cluster's clock. */
struct dds_time {
        uint32_t seconds, number; /* both 0: none */
};

/* Of the thread that works, to the loop. */
struct dds_line {
        int cut; /* a descriptor: readable once the line is cut */
        /* Called on the thread that works: an attempt to read has failed, and is made again; or, with NULL,
         * it went well again. */
        void (*trouble)(void *cookie, const struct dds_fault *);
        void *cookie;
};

/* Where and as whom; copied. Texts are NULL where there are none. */
struct dds_target {
        const char *const *hosts; /* HOST:PORT */
        size_t hosts_n;
        const char *replica_set, *user, *password, *auth_source, *mechanism;
        bool direct; /* ask this host, and do not look for the others of its replica set */
        bool tls, verify_hostname;
        const char *ca, *cert, *key; /* in PEM */
        int connect_ms;
};
/* What is watched, and how; borrowed by watch. */
struct dds_watch {
        const char *database, *collection;
        const char *const *operations;
        size_t operations_n;
        const char *pipeline; /* JSON: a list of further stages */
        const char *full_document, *before;
        int await_ms; /* how long a server waits for something to tell */
        enum { DDS_FROM_NOW, DDS_RESUME_AFTER, DDS_START_AFTER, DDS_AT_TIME } from;
        struct dds_bytes token;
        struct dds_time time;
};
enum dds_next { DDS_NEXT_FAILED = -1, DDS_NEXT_NOTHING, DDS_NEXT_DOCUMENT };

struct dds_client;
struct dds_driver {
        uint32_t version;
        const char *(*library)(void); /* "libmongoc 1.23.1" */
        /* Connects to nothing yet. NULL: the fault says why. */
        struct dds_client *(*open)(const struct dds_target *, const struct dds_line *, struct dds_fault *);
        void (*close)(struct dds_client *); /* takes NULL */
        /* Connects where there is no connection, and opens the stream. One that was open is closed. */
        int (*watch)(struct dds_client *, const struct dds_watch *, struct dds_fault *);
        /* The next change, as BSON, valid until the next call. NOTHING: there was none for a while. After a
         * failure the client is of no use any more. */
        enum dds_next (*next)(struct dds_client *, struct dds_bytes *change, struct dds_fault *);
        uint32_t (*left)(const struct dds_client *); /* changes that are there without asking the server */
        bool (*over)(const struct dds_client *); /* the server has closed the stream, with the last change */
        /* How far the stream has been read when nothing is left, as BSON; n 0: the server does not tell. */
        struct dds_bytes (*reached)(const struct dds_client *);
        struct dds_time (*clock)(const struct dds_client *); /* by the server's last answer */
        /* What time it is, and the time of the oldest change that is still kept. */
        int (*now)(struct dds_client *, struct dds_time *, struct dds_fault *);
        int (*oldest)(struct dds_client *, struct dds_time *, struct dds_fault *);
};
