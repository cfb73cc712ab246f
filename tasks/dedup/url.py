"""When two URLs are the same."""

import pyarrow as pa
import pyarrow.compute as pc

_PARTS = (r"(?is)^(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<user>[^/?@]*@)?(?P<host>\[[^\]/?]*\]|[^/?:@]*)"
          r"(?P<port>:[0-9]*)?(?P<path>/[^?]*)?(?P<query>\?.*)?$")


def normalized(urls: pa.Array | pa.ChunkedArray) -> pa.Array:
    """URLs in a form that is equal for equal resources, after RFC 3986 sections 6.2.2.1 and 6.2.3.

    White space around goes, scheme and host become lower case, a default or empty port goes, an empty path becomes
    `/`, the fragment goes. A trailing slash, an empty query, the order of parameters, `www.` and http against https
    stay: servers are free to answer differently. What is no absolute URL only loses its fragment. Nulls stay null.
    """
    if isinstance(urls, pa.ChunkedArray):
        urls = urls.combine_chunks()
    urls = pc.utf8_trim_whitespace(pc.replace_substring_regex(urls.cast(pa.string()), "(?s)#.*", ""))
    parts = pc.extract_regex(urls, _PARTS)
    scheme, user, host, port, path, query = (pc.struct_field(parts, name) for name in
                                             ("scheme", "user", "host", "port", "path", "query"))
    scheme = pc.utf8_lower(scheme)
    default = pc.or_(pc.equal(port, ":"), pc.or_(pc.and_(pc.equal(scheme, "http"), pc.equal(port, ":80")),
                                                 pc.and_(pc.equal(scheme, "https"), pc.equal(port, ":443"))))
    port = pc.if_else(default, "", port)
    path = pc.if_else(pc.equal(path, ""), "/", path)
    whole = pc.binary_join_element_wise(scheme, "://", user, pc.utf8_lower(host), port, path, query, "")
    return pc.coalesce(whole, urls)
