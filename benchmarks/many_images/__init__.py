"""Many small images: ``exactile run FOLDER`` beside a plain loop."""
