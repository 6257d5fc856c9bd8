#include "source/dds/dds.h"

static const char *const mechanism_names[] = { [DDS_NEGOTIATE] = "Negotiate",
                                               [DDS_SCRAM_SHA_256] = "SCRAM-SHA-256",
                                               [DDS_SCRAM_SHA_1] = "SCRAM-SHA-1",
                                               [DDS_X509] = "X509",
                                               NULL };
static const struct field credentials_fields[] = {
        FIELD(ENUM, "mechanism", struct dds_credentials, mechanism, .fallback = "Negotiate",
              .values = mechanism_names,
              .help = "Negotiate: the strongest SCRAM that the server has for the user. X509: the "
                      "certificate of "
                      "tls says who we are; username is then needed only where the server does not take it "
                      "from "
                      "there."),
        FIELD(OBJECT, "usernameSecretRef", struct dds_credentials, username, .object = &secret_ref_type,
              .help = "The user's name, rwuser or another."),
        FIELD(OBJECT, "passwordSecretRef", struct dds_credentials, password, .object = &secret_ref_type,
              .help = "The user's password."),
        FIELD(STRING, "authSource", struct dds_credentials, auth_source, .fallback = "admin", .min = 1,
              .max = 63, .pattern = "^[^/\\\\. \"$*<>:|?]+$", .format = "a database's name",
              .help = "The database that knows the user; of no meaning for X509."),
};

static bool password_given(const void *object)
{
        const struct dds_credentials *c = object;

        return c->mechanism == DDS_X509 ? !c->password : c->username && c->password;
}
static const struct rule credentials_rules[] = {
        RULE(.cel = "self.mechanism == 'X509' ? !has(self.passwordSecretRef) : has(self.usernameSecretRef) "
                    "&& "
                    "has(self.passwordSecretRef)",
             .message = "usernameSecretRef and passwordSecretRef are both needed; with X509 there is no "
                        "password",
             .check = password_given),
};
static const struct type credentials_type = TYPE("DdsCredentials", struct dds_credentials, credentials_fields,
                                                 "Who we are to the database.", RULES(credentials_rules));

/* ---- the source --------------------------------------------------------- */

#define DATABASE_PATTERN "^[^/\\\\. \"$*<>:|?]+$"
#define OPERATIONS_BY_DEFAULT "[insert, update, replace, delete]"
static const char *const full_names[] = { [DDS_UPDATE_LOOKUP] = "UpdateLookup",
                                          [DDS_AS_LOGGED] = "Default",
                                          [DDS_WHEN_AVAILABLE] = "WhenAvailable",
                                          [DDS_REQUIRED] = "Required",
                                          NULL };
static const char *const before_names[] = { [DDS_BEFORE_OFF] = "None",
                                            [DDS_BEFORE_WHEN_AVAILABLE] = "WhenAvailable",
                                            [DDS_BEFORE_REQUIRED] = "Required",
                                            NULL };
static const char *const start_names[] = {
        [DDS_LATEST] = "Latest", [DDS_EARLIEST] = "Earliest", [DDS_TIMESTAMP] = "Timestamp", NULL
};
static const char *const lost_names[] = {
        [DDS_LOST_FAIL] = "Fail", [DDS_LOST_NOW] = "Now", [DDS_LOST_EARLIEST] = "Earliest", NULL
};
static const struct field dds_fields[] = {
        FIELD(STRINGS, "hosts", struct dds_spec, hosts, .required = true, .min = 1, .max = 50, .set = true,
              .pattern = "^([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\]):" PORT_PATTERN "$", .format = "HOST:PORT",
              .cloud = "instance_addrs",
              .help = "Nodes of the replica set, or the mongos nodes of a cluster, each HOST:PORT (DDS: "
                      "8635). "
                      "One is enough to find the others of a replica set."),
        FIELD(STRING, "replicaSet", struct dds_spec, replica_set, .min = 1, .max = 128,
              .pattern = "^[A-Za-z0-9_.-]+$", .format = "a replica set's name",
              .help = "The replica set's name: nodes of another one are refused. By default it is the one "
                      "that "
                      "the hosts are of."),
        FIELD(BOOL, "directConnection", struct dds_spec, direct, .fallback = "false",
              .help = "true: only the host that is given is asked, whatever addresses its replica set knows "
                      "its "
                      "nodes by, as where it is reached through a tunnel or another address."),
        FIELD(STRING, "database", struct dds_spec, database, .min = 1, .max = 63, .pattern = DATABASE_PATTERN,
              .format = "a database's name", .cloud = "db_name",
              .help = "The database that is watched; by default all but admin, local and config."),
        FIELD(STRING, "collection", struct dds_spec, collection, .min = 1, .max = 255, .pattern = "^[^$]+$",
              .format = "a collection's name", .cloud = "collection_name",
              .help = "The collection that is watched; by default all of the database."),
        FIELD(OBJECT, "credentials", struct dds_spec, credentials, .object = &credentials_type,
              .help = "Who we are to the database; by default nobody."),
        FIELD(OBJECT, "tls", struct dds_spec, tls, .object = &tls_type,
              .help = "TLS towards the database; {}: with the system's authorities. By default none."),
        FIELD(STRINGS, "operations", struct dds_spec, operations, .fallback = OPERATIONS_BY_DEFAULT, .min = 1,
              .max = 32, .set = true, .pattern = "^[a-z][A-Za-z]*$", .format = "an operation type of MongoDB",
              .help = "The operation types that are delivered; others are drop, rename, dropDatabase, "
                      "invalidate, and what servers may add."),
        FIELD(RAW, "pipeline", struct dds_spec, pipeline, .shape = RAW_LIST,
              .help = "Further stages that the server applies to the changes, such as $match, in Extended "
                      "JSON. "
                      "They must leave _id and operationType as they are."),
        FIELD(ENUM, "fullDocument", struct dds_spec, full_document, .fallback = "UpdateLookup",
              .values = full_names,
              .help = "The document of an update: UpdateLookup looks it up, as it is some time after the "
                      "update; Default leaves it out; WhenAvailable and Required (from MongoDB 6.0 on) take "
                      "the "
                      "image that the collection keeps."),
        FIELD(ENUM, "fullDocumentBeforeChange", struct dds_spec, before, .fallback = "None",
              .values = before_names,
              .help = "The document before the change, from MongoDB 6.0 on, where the collection keeps "
                      "images. "
                      "Filters and CloudEvents have it, FunctionGraph's event does not."),
        FIELD(ENUM, "startPosition", struct dds_spec, start, .fallback = "Latest", .values = start_names,
              .help = "Where reading begins at the first start: Latest with what comes from then on, "
                      "Earliest "
                      "with the oldest change that the oplog holds, which asks for the right to read it, "
                      "Timestamp with the first of startTimestamp or later."),
        FIELD(TIME, "startTimestamp", struct dds_spec, start_timestamp,
              .help = "With Timestamp: changes of that time or later are read, as far as the oplog holds "
                      "them."),
        FIELD(ENUM, "onLost", struct dds_spec, on_lost, .fallback = "Fail", .values = lost_names,
              .help = "What is done when the oplog no longer holds the position, so that changes are lost: "
                      "Fail "
                      "reads nothing until this is set to one of the others, Now goes on with what comes "
                      "from "
                      "then on, Earliest with the oldest change that the oplog holds."),
        FIELD(DURATION, "tokenInterval", struct dds_spec, token_interval, .fallback = "10m", .min = USEC_SEC,
              .max = USEC_DAY,
              .help = "While nothing is delivered, the position that the server has come to is stored this "
                      "often, so that a quiet stream does not fall out of the oplog. Keep it well below the "
                      "oplog's window."),
        FIELD(INT, "maxEventBytes", struct dds_spec, max_event_bytes, .fallback = "6291456", .min = 1024,
              .max = 67108864,
              .help = "A change that takes more, as JSON, is not sent: it has failed, and onExhausted of "
                      "delivery.retry decides. The default is FunctionGraph's limit."),
};

static bool has_database(const void *object)
{
        const struct dds_spec *spec = object;

        return spec->database || !spec->collection;
}

static bool is_own_database(const void *object)
{
        const struct dds_spec *spec = object;

        return !string_equal(spec->database, "admin") && !string_equal(spec->database, "local") &&
               !string_equal(spec->database, "config");
}

static bool has_timestamp(const void *object)
{
        const struct dds_spec *spec = object;

        return (spec->start == DDS_TIMESTAMP) == (spec->start_timestamp != 0);
}

static bool has_certificate(const void *object)
{
        const struct dds_spec *spec = object;

        return !spec->credentials || spec->credentials->mechanism != DDS_X509 ||
               (spec->tls && spec->tls->cert);
}

static bool is_one_host(const void *object)
{
        const struct dds_spec *spec = object;

        return !spec->direct || spec->hosts.n == 1;
}

static const struct rule dds_rules[] = {
        RULE(.cel = "has(self.database) || !has(self.collection)",
             .message = "a collection is one of a database: give that, too", .path = "database",
             .check = has_database),
        RULE(.cel = "!has(self.database) || !(self.database in ['admin', 'local', 'config'])",
             .message = "admin, local and config are the server's own, and can't be watched",
             .path = "database", .check = is_own_database),
        RULE(.cel = "(self.startPosition == 'Timestamp') == has(self.startTimestamp)",
             .message = "startTimestamp goes with startPosition Timestamp, and only with it",
             .path = "startTimestamp", .check = has_timestamp),
        RULE(.cel = "!has(self.credentials) || self.credentials.mechanism != 'X509' || (has(self.tls) && "
                    "has(self.tls.certSecretRef))",
             .message = "X509 needs the certificate of tls.certSecretRef", .path = "credentials",
             .check = has_certificate),
        RULE(.cel = "!self.directConnection || self.hosts.size() == 1",
             .message = "with directConnection there is one host", .path = "hosts", .check = is_one_host),
};
const struct type dds_type = TYPE(
        "DdsSource", struct dds_spec, dds_fields,
        "Changes of documents in the Document Database Service, or in any MongoDB from "
        "4.0 on, by change streams.",
        RULES(dds_rules));

void dds_scope(const struct dds_spec *spec, struct buf *b)
{
        if (!spec->database)
                buf_char(b, '*');
        else
                buf_printf(b, "%s.%s", spec->database, spec->collection ? spec->collection : "*");
}
