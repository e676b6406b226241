//! Pictures, sounds and documents of a prompt, encoded once for all requests that have them. For prompts and dialects.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::shared::SharedText;

/// What a medium is, as far as dialects tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// A picture.
    Image,
    /// Sound.
    Audio,
    /// A document.
    File,
}

impl MediaKind {
    /// The word for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Audio => "audio",
            Self::File => "file",
        }
    }
}

/// A picture, a sound or a document; its bytes are encoded once, when it is made.
#[derive(Debug, Clone)]
pub struct Media {
    /// What it is.
    pub kind: MediaKind,
    /// Its IANA media type, `image/png` for instance; empty where nobody knows it, of a URL.
    pub media_type: String,
    /// A name for documents.
    pub name: Option<String>,
    /// OpenAI's `detail` of a picture.
    pub detail: Option<String>,
    /// A URL of any kind; for bytes a `data:` URL.
    url: SharedText,
    /// Where the base64 text begins in it; `None` when the bytes are elsewhere.
    encoded_from: Option<usize>,
    /// That text, once a dialect has sent it without the rest of the URL.
    encoded: OnceLock<SharedText>,
}

impl PartialEq for Media {
    fn eq(&self, other: &Self) -> bool {
        let told = |media: &Self| (media.kind, media.media_type.clone(), media.name.clone(), media.detail.clone());
        self.url == other.url && told(self) == told(other)
    }
}

impl Media {
    /// A medium whose bytes travel with each request.
    pub fn from_bytes(kind: MediaKind, media_type: &str, bytes: &[u8]) -> Self {
        let mut url = format!("data:{media_type};base64,");
        let start = url.len();
        STANDARD.encode_string(bytes, &mut url);
        Self { encoded_from: Some(start), ..Self::from_url(kind, media_type, &url) }
    }

    /// A medium that the provider fetches.
    pub fn from_url(kind: MediaKind, media_type: &str, url: &str) -> Self {
        Self {
            kind,
            media_type: media_type.to_owned(),
            name: None,
            detail: None,
            url: SharedText::new(url),
            encoded_from: None,
            encoded: OnceLock::new(),
        }
    }

    /// A medium at a URL; a `data:` URL (RFC 2397) is its bytes. Without a media type, that of the URL, of the name in it
    /// or of the first bytes is taken.
    ///
    /// # Errors
    /// Says what is wrong with a `data:` URL.
    pub fn at(kind: MediaKind, media_type: Option<&str>, url: String) -> Result<Self, String> {
        if !url.trim_start().get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:")) {
            let guessed = || {
                let path = url.split(['?', '#']).next().unwrap_or_default();
                mime_guess::from_path(path).first_raw().unwrap_or_default()
            };
            let media_type = media_type.unwrap_or_else(guessed).to_owned();
            return Ok(Self::from_url(kind, &media_type, &url));
        }
        let wrong = |what: &str| format!("the data: URL of this {} {what}", kind.name());
        // Some write base64 as it is written in addresses (RFC 4648, section 5).
        let url = match url.split_once(";base64,") {
            Some((head, data)) if data.contains(['-', '_']) => {
                format!("{head};base64,{}", data.replace('-', "+").replace('_', "/"))
            }
            _ => url,
        };
        let parsed = data_url::DataUrl::process(url.trim()).map_err(|_| wrong("is not valid (RFC 2397)"))?;
        let (bytes, _) = parsed.decode_to_vec().map_err(|_| wrong("is not valid base64"))?;
        if bytes.is_empty() {
            return Err(wrong("is empty"));
        }
        let head = url.split(',').next().unwrap_or_default();
        let names_type = head.len() > 5 && head[5..].trim_start().starts_with(|c: char| c != ';' && !c.is_whitespace());
        let own = names_type.then(|| format!("{}/{}", parsed.mime_type().type_, parsed.mime_type().subtype));
        let media_type = media_type
            .map(str::to_owned)
            .or(own)
            .or_else(|| sniff(&bytes).map(str::to_owned))
            .ok_or_else(|| wrong("has no media type: write, for example, data:image/png;base64,..."))?;
        let media_type = if media_type == "image/jpg" { "image/jpeg".to_owned() } else { media_type };
        if kind == MediaKind::Image && !media_type.starts_with("image/") {
            return Err(wrong(&format!("has the media type {media_type}, which is not an image")));
        }
        Ok(Self::from_bytes(kind, &media_type, &bytes))
    }

    /// Whether its bytes travel with the request.
    pub fn travels(&self) -> bool {
        self.encoded_from.is_some()
    }

    /// The bytes as base64 text, if they travel with the request.
    pub fn base64(&self) -> Option<&SharedText> {
        let start = self.encoded_from?;
        let written = || SharedText::new(self.url.text().get(start..).unwrap_or_default());
        Some(self.encoded.get_or_init(written))
    }

    /// Its URL; for bytes a `data:` URL.
    pub fn url(&self) -> &SharedText {
        &self.url
    }

    /// The second half of the media type: `png` of `image/png`.
    pub fn format(&self) -> &str {
        let format = self.media_type.rsplit('/').next().unwrap_or_default();
        match format {
            "mpeg" => "mp3",
            "x-wav" | "wave" => "wav",
            _ => format,
        }
    }
}

/// The media type of bytes, by how they begin.
pub fn sniff(bytes: &[u8]) -> Option<&'static str> {
    const SIGNATURES: &[(&[u8], &str)] = &[
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF8", "image/gif"),
        (b"%PDF-", "application/pdf"),
        (b"ID3", "audio/mpeg"),
        (b"\xff\xfb", "audio/mpeg"),
        (b"fLaC", "audio/flac"),
        (b"OggS", "audio/ogg"),
    ];
    match (bytes.get(..4), bytes.get(8..12)) {
        (Some(b"RIFF"), Some(b"WEBP")) => Some("image/webp"),
        (Some(b"RIFF"), Some(b"WAVE")) => Some("audio/wav"),
        _ => SIGNATURES.iter().find(|(signature, _)| bytes.starts_with(signature)).map(|(_, kind)| *kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_encoded_once_and_seen_two_ways() {
        let media = Media::from_bytes(MediaKind::Audio, "audio/mpeg", b"abc");
        assert_eq!(media.base64().map(SharedText::text), Some("YWJj"));
        assert_eq!(media.url().text(), "data:audio/mpeg;base64,YWJj");
        assert_eq!(media.format(), "mp3");
        assert_eq!(Media::from_url(MediaKind::Image, "image/png", "https://x/y.png").base64(), None);
    }

    #[test]
    fn data_urls_are_bytes_in_every_spelling() {
        let of = |url: &str| Media::at(MediaKind::Image, None, url.to_owned());
        for url in [
            "data:image/png;base64,YWJj",
            "DATA:image/png;base64,YWJj",
            "data:image/png;charset=utf-8;base64,YWJj",
            "data:IMAGE/PNG;base64,YW%4Aj",
            "data:image/png;base64,YW\nJj",
            "data:image/png,abc",
            " data:image/png;base64,YWJj ",
        ] {
            let media = of(url).unwrap();
            let encoded = media.base64().map(SharedText::text);
            assert_eq!((encoded, media.media_type.as_str()), (Some("YWJj"), "image/png"), "{url}");
            assert_eq!(media.url().text(), "data:image/png;base64,YWJj");
        }
        let sniffed = of("data:;base64,iVBORw0KGgo=").unwrap();
        assert_eq!(sniffed.media_type, "image/png");
        assert!(of("data:image/png;base64,*").unwrap_err().contains("base64"));
        assert!(of("data:;base64,YWJj").unwrap_err().contains("has no media type"));
        assert!(of("data:nothing").is_err());
        let far = of("https://h/x.jpeg?a=b.png").unwrap();
        assert_eq!((far.base64(), far.media_type.as_str()), (None, "image/jpeg"));
        assert_eq!(of("https://h/picture").unwrap().media_type, "");
        assert_eq!(
            Media::at(MediaKind::File, Some("text/x"), "https://h/x.pdf".to_owned()).unwrap().media_type,
            "text/x"
        );
    }
}
