//! Uploads in several requests: a session is begun, and what is sent to its address becomes a file (Gemini, Together).
//! Whoever has the address needs no key.

use std::collections::HashMap;

use super::files::MOST_BYTES;

/// Most sessions at a time.
const MOST: usize = 1_000;

/// An upload that is not complete.
#[derive(Debug, Default)]
pub struct Session {
    /// Whose it is.
    pub account: u64,
    /// The id that the file is to have.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its media type.
    pub kind: String,
    /// What has come.
    pub bytes: Vec<u8>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Sessions(HashMap<String, Session>);

impl Sessions {
    /// Begins one.
    ///
    /// # Errors
    /// When there are too many.
    pub fn begin(&mut self, key: String, session: Session) -> Result<(), String> {
        if self.0.len() >= MOST {
            return Err(format!("at most {MOST} uploads can be begun at a time"));
        }
        self.0.insert(key, session);
        Ok(())
    }

    /// One that was begun.
    pub fn get(&mut self, key: &str) -> Option<&mut Session> {
        self.0.get_mut(key)
    }

    /// Adds bytes, if they begin where the last have ended: how many there are now.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn append(&mut self, key: &str, offset: usize, bytes: &[u8]) -> Result<usize, String> {
        let held: usize = self.0.values().map(|session| session.bytes.len()).sum();
        let session = self.0.get_mut(key).ok_or("there is no such upload")?;
        if offset != session.bytes.len() {
            return Err(format!("the offset must be {}, not {offset}", session.bytes.len()));
        }
        if held + bytes.len() > MOST_BYTES {
            return Err(format!("the simulated provider holds at most {MOST_BYTES} bytes of uploads"));
        }
        session.bytes.extend_from_slice(bytes);
        Ok(session.bytes.len())
    }

    /// Ends one.
    pub fn end(&mut self, key: &str) -> Option<Session> {
        self.0.remove(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_put_together_in_order() {
        let mut sessions = Sessions::default();
        sessions.begin("k".to_owned(), Session::default()).unwrap();
        assert_eq!(sessions.append("k", 0, b"ab"), Ok(2));
        assert!(sessions.append("k", 0, b"ab").unwrap_err().contains("must be 2"));
        assert_eq!(sessions.append("k", 2, b"c"), Ok(3));
        assert!(sessions.append("x", 0, b"").is_err());
        assert_eq!(sessions.end("k").unwrap().bytes, b"abc");
        assert!(sessions.get("k").is_none());
        for number in 0..MOST {
            sessions.begin(number.to_string(), Session::default()).unwrap();
        }
        assert!(sessions.begin("k".to_owned(), Session::default()).is_err());
    }
}
