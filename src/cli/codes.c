/* codes.c: what each error code means and what helps, for `xinfer help XI-NNNN`. */
#include <stddef.h>

#include "cli/cli.h"

struct page {
    enum xi_rc rc;
    const char *text;
};

static const struct page pages[] = {
    {XI_EINVAL, "A field of the request is missing, has the wrong type or is out of range.\n"
                "The message names it; the API reference lists what each call takes."},
    {XI_ETENSOR,
     "An input's name, type, shape or size is not what the model declares.\n"
     "GET /v1/models/NAME shows its inputs; --dtype and --shape say what a file holds."},
    {XI_EJSON, "The body is no valid JSON, is nested too deep or names a key twice."},
    {XI_EIMAGE,
     "The picture or sound is damaged, cut off, too large or of another format.\n"
     "Pictures are JPEG or PNG of at most 16384 pixels a side and 100 million in all, sound "
     "is WAV (PCM or float) at the model's rate."},
    {XI_EREGION,
     "A shared memory region of the client is too small, was cut or does not hold the tensor.\n"
     "It must stay as large as it was registered until the last answer that uses it."},
    {XI_ECODING, "A body with Content-Encoding is damaged or cut short. Send it whole, as gzip or\n"
                 "deflate (zlib's form), or without Content-Encoding."},
    {XI_EMETHOD, "This address exists, but not with this HTTP method."},
    {XI_EMEDIA, "The Content-Type is none that this call takes.\n"
                "Pictures are image/jpeg or image/png, raw tensors application/octet-stream."},
    {XI_ETOOBIG, "The request is larger than the limit that the message names. Send less at once."},
    {XI_EHEADERS, "The request's headers are too many or too long: 100 and 32 KiB are taken."},
    {XI_EHTTP, "What arrived is no HTTP that can be read in one way only. Check the client."},
    {XI_EUSAGE, "The command line was not understood. xinfer help COMMAND shows how it goes."},
    {XI_ENOENT, "No model, package, session or file of that name.\n"
                "xinfer ps lists what is loaded, xinfer ls what is installed."},
    {XI_EROUTE, "There is no such address. GET /v1/openapi.json lists them all."},
    {XI_EGONE, "The session was unloaded; its id will not come back. Load the package again."},
    {XI_ECONFLICT, "A name is taken, a package is loaded, or a swap is under way, or none is; the\n"
                   "message says which. xinfer ps shows what is there; load --replace swaps it."},
    {XI_ESEQUENCE,
     "The sequence has ended (idle, unloaded, the daemon or a stateful engine began anew) "
     "or was never begun.\n"
     "Begin it again with Xinfer-Sequence: ID;start."},
    {XI_EPACKAGE, "The package breaks a rule of its format; the message says which and where.\n"
                  "xinfer inspect FILE checks one; download or pack it again."},
    {XI_EVERSION, "The package, or the store, was made for a newer xInfer. Update this one."},
    {XI_EDIGEST, "The bytes are not those that were signed or named: the file was changed or\n"
                 "damaged on its way. Get it again."},
    {XI_EGOLDEN, "The model was loaded, but answered the sample in its package wrongly, so it is\n"
                 "not served. Another engine, device or precision (--variant) may do."},
    {XI_EFLOW, "The steps before or after the model are not valid; the message names the step."},
    {XI_EMODEL, "The engine cannot read this model or an operation in it is unknown to it.\n"
                "Convert it anew, or pick another variant or engine."},
    {XI_EUNSUPPORTED, "This version, or this machine, cannot do what was asked."},
    {XI_ENOENGINE, "The engine that the model needs is not installed or did not start.\n"
                   "xinfer doctor lists the engines and says what each is missing."},
    {XI_EHOST, "The process that runs the model ended and is being started anew. Try again soon."},
    {XI_EPOISON, "This very input ended the model's process before, so it is not run again.\n"
                 "Other inputs are served. Loading the model anew forgets it."},
    {XI_EENGINE, "The engine reported a failure of its own; the message carries its words."},
    {XI_EDEVICE,
     "The device vanished or stopped answering. Check driver and cable; xinfer doctor."},
    {XI_ECRASHLOOP, "The model crashed so often that it is no longer started.\n"
                    "Unload it, and load it again when the cause is known (see the daemon's log)."},
    {XI_EINCIDENT, "The model's process ended, or hung, while it ran this request, also when the\n"
                   "request ran alone. Other requests were not affected."},
    {XI_EAGAIN,
     "More work waits than the limit allows. Try again in a moment, or send less at once."},
    {XI_EBUDGET, "There is less memory left than this needs.\n"
                 "Unload a model (xinfer ps, xinfer unload), or pick a smaller variant."},
    {XI_EQUOTA, "This tenant has used up its share for now. Try again later."},
    {XI_ENOMEM, "The machine, or the limit set for models, has no memory left.\n"
                "Unload a model, or raise host_memory in the daemon's configuration."},
    {XI_EDISK, "The disk is full, or the directory may not be written by this user.\n"
               "Make room, or name another directory with --state."},
    {XI_EFDS, "No file descriptors are left. Raise the limit: ulimit -n, LimitNOFILE= in systemd."},
    {XI_EDRAIN, "The daemon is shutting down and takes no new work."},
    {XI_EAUTH, "This daemon wants a token: set XINFER_TOKEN, or ask its administrator for one."},
    {XI_EFORBIDDEN, "The token is known, but its role does not allow this call."},
    {XI_EORIGIN, "A page of another site may not call this daemon.\n"
                 "allowed_origins in the configuration lists those that may."},
    {XI_EHOSTNAME,
     "The Host header is not a name of this daemon, as in an attack by DNS rebinding.\n"
     "allowed_hosts in the configuration adds names."},
    {XI_ETIMEOUT, "The time that was given ran out. Give more with --deadline, or ask again when\n"
                  "less is waiting."},
    {XI_ESLOW, "The client sent, or read, too slowly, and its connection was closed."},
    {XI_ECANCELLED, "The call was ended before its answer came."},
    {XI_ECONFIG, "A setting is unknown or out of range; the message names it.\n"
                 "xinferd --check-config tries a file without starting anything."},
    {XI_ELOCKED,
     "Another xinferd uses this state directory. End it, or name another with --state."},
    {XI_EPORT, "Another program listens on this address. End it, or pick another with --listen."},
    {XI_EIO, "Reading or writing failed; the message carries the system's reason."},
    {XI_EUNREACH,
     "No xinferd answers there. Start one with xinfer serve, or name the right one with\n"
     "--server URL or XINFER_SERVER."},
    {XI_EPROTO,
     "The other side answered something that is not the protocol. Is it xinferd, and of\n"
     "this version?"},
    {XI_EINTERNAL, "A mistake in xInfer itself. Please report it, with the daemon's log."},
};

const char *xi_code_help(enum xi_rc rc)
{
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
        if (pages[i].rc == rc)
            return pages[i].text;
    return xi_rc_title(rc);
}
