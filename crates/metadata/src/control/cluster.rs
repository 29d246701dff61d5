//! What holds for the cluster as a whole.

use base::error::ErrorCode;

use crate::command::Refusal;
use crate::image::Image;

/// Raises the level of the metadata's content.
pub(super) fn set_metadata_version(image: &mut Image, version: i16) -> Result<(), Refusal> {
    let present = image.metadata_version();
    if version < present {
        let message =
            format!("The metadata is at metadata.version {present}, and never goes back to {version}.");
        return Err(Refusal::new(ErrorCode::InvalidUpdateVersion, message));
    }
    image.metadata_version = version;
    Ok(())
}
