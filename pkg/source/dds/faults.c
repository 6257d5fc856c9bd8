#include <stdio.h>

#include "source/dds/inside.h"

/* Codes of MongoDB's servers. */
enum {
        CODE_FAILED_TO_PARSE = 9,
        CODE_UNAUTHORIZED = 13,
        CODE_TYPE_MISMATCH = 14,
        CODE_AUTHENTICATION_FAILED = 18,
        CODE_INVALID_OPTIONS = 72,
        CODE_INVALID_NAMESPACE = 73,
        CODE_INVALID_RESUME_TOKEN = 260,
        CODE_STREAM_FATAL = 280,
        CODE_HISTORY_LOST = 286,
        CODE_NO_IMAGE = 47, /* NoMatchingDocument */
        CODE_TOO_LARGE = 10334,
        CODE_UNKNOWN_STAGE = 40324,
        CODE_UNKNOWN_OPTION = 40415,
        CODE_NO_REPLICA_SET = 40573,
};

/* What a retry can't help is asked again so seldom. */
static const usec FINAL_PAUSE = 5 * USEC_SEC;

static const struct meaning {
        int code;
        const char *advice;
} meanings[] = {
        { CODE_FAILED_TO_PARSE, "the server can't read the pipeline or the position" },
        { CODE_UNAUTHORIZED,
          "the user needs the actions find and changeStream on what is watched: the role read of "
          "the database, readAnyDatabase for all databases" },
        { CODE_TYPE_MISMATCH, "the server can't read the pipeline or the position" },
        { CODE_AUTHENTICATION_FAILED, "check the user's name, the password, authSource and mechanism" },
        { CODE_INVALID_OPTIONS, "the server does not take the pipeline, or an option" },
        { CODE_INVALID_NAMESPACE, "check database and collection" },
        { CODE_INVALID_RESUME_TOKEN,
          "the server does not take the stored position; was the database restored, or "
          "another one put in its place? A Trigger of another name starts afresh" },
        { CODE_NO_IMAGE,
          "the collection keeps no images of its documents: enable changeStreamPreAndPostImages, or "
          "ask with WhenAvailable" },
        { CODE_TOO_LARGE,
          "a change has more than 16 MB, and the server, before 7.0, can't send it in parts: leave "
          "large fields out with a $project stage in pipeline" },
        { CODE_UNKNOWN_STAGE, "the server is too old for a stage" },
        { CODE_UNKNOWN_OPTION,
          "the server is too old for fullDocument, fullDocumentBeforeChange or the scope" },
        { CODE_NO_REPLICA_SET,
          "a single node has no oplog, and so no change streams: it takes a replica set or a "
          "cluster" },
};

bool dds_fault_lost(const struct dds_fault *f)
{
        return f->kind == DDS_FAULT_SERVER && (f->code == CODE_HISTORY_LOST || f->code == CODE_STREAM_FATAL);
}

static const struct meaning *meaning_of(int code)
{
        for (size_t i = 0; i < COUNT_OF(meanings); i++)
                if (meanings[i].code == code)
                        return &meanings[i];
        return NULL;
}

static int final(struct error *err)
{
        err->retry = false;
        err->retry_after = FINAL_PAUSE;
        return -1;
}

static int again(struct error *err)
{
        err->retry = true;
        return -1;
}

static int server_error(const struct dds_fault *f, struct error *err)
{
        const struct meaning *m = meaning_of(f->code);
        enum error_kind kind = f->code == CODE_UNAUTHORIZED            ? ERROR_FORBIDDEN
                               : f->code == CODE_AUTHENTICATION_FAILED ? ERROR_UNAUTHORIZED
                                                                       : ERROR_REFUSED;

        if (!m) {
                (void)error_set(err, kind, "the server says %d: %s", f->code, f->text);
                return again(err);
        }
        (void)error_set(err, kind, "the server says %d: %s; %s", f->code, f->text, m->advice);
        return final(err);
}

static const char *hosts_of(const struct dds_spec *spec, const struct dds_fault *f, struct buf *space)
{
        if (f->where[0])
                return f->where;
        strings_join(&spec->hosts, space);
        return space->p ? space->p : "the database";
}

int dds_fault_error(const struct dds_spec *spec, const struct dds_fault *f, struct error *err)
{
        BUF_AT_END struct buf space = BUF_INIT(8192);
        const char *where = hosts_of(spec, f, &space);

        switch (f->kind) {
        case DDS_FAULT_SERVER: return server_error(f, err);
        case DDS_FAULT_NAME:
                (void)error_set(err, ERROR_UNREACHABLE, "find the address of %s: %s; is the name right?",
                                where, f->text);
                return again(err);
        case DDS_FAULT_CONNECT:
                (void)error_set(
                        err, ERROR_UNREACHABLE,
                        "connect to %s: %s; is it there, and may we reach it (DDS listens on port 8635, and "
                        "its security group must let us in)?",
                        where, f->text);
                return again(err);
        case DDS_FAULT_PRIMARY:
                (void)error_set(
                        err, ERROR_UNREACHABLE,
                        "find the primary of replica set %s among %s: %s; is the name right, and has it a "
                        "primary now?",
                        spec->replica_set ? spec->replica_set : "(any)", where, f->text);
                return again(err);
        case DDS_FAULT_TLS:
                (void)error_set(
                        err, ERROR_UNREACHABLE,
                        "TLS with %s: %s; check tls.caSecretRef, the certificates and, where the name in "
                        "them is another, tls.verifyHostname",
                        where, f->text);
                return again(err);
        case DDS_FAULT_USER:
                (void)error_set(
                        err, ERROR_UNAUTHORIZED,
                        "%s does not let us in: %s; check the user's name, the password, authSource and "
                        "mechanism",
                        where, f->text);
                return final(err);
        case DDS_FAULT_NETWORK:
                (void)error_set(err, ERROR_UNREACHABLE, "the connection to %s broke: %s", where, f->text);
                return again(err);
        case DDS_FAULT_CONFIG: (void)error_set(err, ERROR_INVALID, "%s", f->text); return final(err);
        case DDS_FAULT_MEMORY: return error_memory(err);
        case DDS_FAULT_CUT: return error_set(err, ERROR_CANCELLED, "it is not wanted any more");
        case DDS_FAULT_OTHER:
        case DDS_FAULT_NONE: break;
        }
        (void)error_set(err, ERROR_REFUSED, "%s", f->text);
        return again(err);
}
