<?php
$wp_version = ;
