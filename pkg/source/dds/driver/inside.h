/* Inside the driver: the client of libmongoc, and the connections that it makes. One thread at a time. */
#pragma once

#include <mongoc/mongoc.h>

#include "source/dds/driver.h"

struct dds_client {
        mongoc_client_t *mongo;
        mongoc_change_stream_t *stream; /* NULL: none */
        struct dds_line line;
        mongoc_ssl_opt_t tls;
        bool has_tls;
        int ca, pem; /* files in memory; -1: none */
        int connect_ms;
        struct dds_fault connecting; /* why the last connection could not be made */
        /* by the server's last answer: */
        uint32_t left;
        bool over;
        struct dds_time clock;
        unsigned failures; /* of getMore, one after the other */
        bool troubled;     /* the loop was told */
};

/* wire.c: makes a connection of our own, so that it can be cut; the user data is the client. */
mongoc_stream_t *wire_open(const mongoc_uri_t *, const mongoc_host_list_t *, void *client, bson_error_t *);
bool wire_is_cut(const struct dds_line *);
/* false: it was cut. */
bool wire_pause(const struct dds_line *, int msec);
