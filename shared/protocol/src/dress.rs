//! How a reply is dressed for a client that cannot take it as it is: another content type, a script around it, the word
//! to the browser that a page of another host may read it.

use std::sync::Arc;

use crate::origins::Admitted;
use crate::parameters::Parameters;
use crate::{Limits, RawRequest, RequestError};

/// What differs from the usual reply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Dress {
    /// It passes for plain text: XDomainRequest takes nothing else, and Internet Explorer offers to save JSON.
    pub(crate) plain_text: bool,
    /// It is a script that calls this function.
    pub(crate) callback: Option<Box<str>>,
    /// Which page of another host may read it.
    pub(crate) admitted: Option<Admitted>,
}

impl Dress {
    /// As a request asks for.
    ///
    /// # Errors
    ///
    /// [`RequestError::ContentTypeUnknown`], [`RequestError::CallbackMalformed`] or [`RequestError::JsonpOff`].
    pub(crate) fn parse(
        parameters: &Parameters,
        raw: &RawRequest<'_>,
        limits: &Limits,
    ) -> Result<Self, RequestError> {
        let callback = parameters.callback()?;
        if callback.is_some() && !limits.jsonp {
            return Err(RequestError::JsonpOff);
        }
        let admitted = limits.origins.admit(raw.headers);
        Ok(Self { plain_text: parameters.plain_text()?, callback, admitted })
    }

    /// As a request asks for, as far as that can be understood: for the reply to one that cannot.
    pub(crate) fn of(raw: &RawRequest<'_>, limits: &Limits) -> Self {
        let asked = Parameters::of(raw).ok().and_then(|all| Self::parse(&all, raw, limits).ok());
        asked.unwrap_or_else(|| Self { admitted: limits.origins.admit(raw.headers), ..Self::default() })
    }

    /// `None` when there is nothing to it, which is usual.
    pub(crate) fn shared(self) -> Option<Arc<Self>> {
        (self != Self::default()).then(|| Arc::new(self))
    }
}
